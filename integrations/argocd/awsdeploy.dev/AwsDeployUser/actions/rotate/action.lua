-- Any new value requests one rotation.
local os = require("os")
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["awsdeploy.dev/rotate"] = os.date("!%Y-%m-%dT%H:%M:%SZ")
return obj
