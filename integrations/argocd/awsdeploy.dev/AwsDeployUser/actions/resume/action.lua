if obj.metadata.annotations ~= nil then
  obj.metadata.annotations["awsdeploy.dev/paused"] = nil
end
return obj
