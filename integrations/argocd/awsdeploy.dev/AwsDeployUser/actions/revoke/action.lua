obj.spec.credentials = "Revoked"
return obj
