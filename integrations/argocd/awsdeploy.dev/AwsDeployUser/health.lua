-- Health of an AwsDeployUser. Argo CD opens only the libraries package, base and table, and a safe os.
local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end

local function is(name, status)
  return conditions[name] ~= nil and conditions[name].status == status
end

-- Set by a person, and effective before the operator reports it.
local annotations = obj.metadata.annotations or {}
if annotations["awsdeploy.dev/paused"] == "true" then
  return {status = "Suspended", message = "Paused: nothing is created, changed or rotated"}
end

-- The status of an earlier generation says nothing about this one.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation or conditions.Ready == nil then
  return {status = "Progressing", message = "Waiting for the operator"}
end

if is("Ready", "True") then
  local message = conditions.Ready.message
  if is("RotationHealthy", "False") then
    message = "Ready; RotationHealthy is False: " .. conditions.RotationHealthy.message
  end
  return {status = "Healthy", message = message}
end

-- Revoked as requested. A revocation that has not taken effect has another reason.
if obj.spec.credentials == "Revoked" and conditions.Ready.reason == "CredentialsRevoked" then
  return {status = "Suspended", message = conditions.Ready.message}
end

if is("Stalled", "True") then
  return {status = "Degraded", message = conditions.Stalled.message}
end
if is("Reconciling", "True") then
  return {status = "Progressing", message = conditions.Reconciling.message}
end
if is("Ready", "False") then
  return {status = "Degraded", message = conditions.Ready.message}
end
return {status = "Progressing", message = conditions.Ready.message}
