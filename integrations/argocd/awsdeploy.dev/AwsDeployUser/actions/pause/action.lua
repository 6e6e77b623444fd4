if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["awsdeploy.dev/paused"] = "true"
return obj
