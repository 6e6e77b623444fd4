obj.spec.credentials = "Active"
return obj
