local annotations = obj.metadata.annotations or {}
local paused = annotations["awsdeploy.dev/paused"] == "true"
local revoked = obj.spec.credentials == "Revoked"

return {
  rotate = {displayName = "Rotate the access key", disabled = paused or revoked or obj.spec.accessKey == nil},
  revoke = {displayName = "Revoke all access keys", disabled = revoked},
  restore = {displayName = "Restore access with a new key", disabled = not revoked},
  pause = {displayName = "Pause", disabled = paused},
  resume = {displayName = "Resume", disabled = not paused},
}
