-- Health of an AwsDeployUserClass. Argo CD opens only the libraries package, base and table, and a safe os.
local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end

local function is(name, status)
  return conditions[name] ~= nil and conditions[name].status == status
end

-- The status of an earlier generation says nothing about this one.
if obj.status == nil or obj.status.observedGeneration ~= obj.metadata.generation or conditions.Ready == nil then
  return {status = "Progressing", message = "Waiting for the operator"}
end

if is("Ready", "True") then
  return {status = "Healthy", message = conditions.Ready.message}
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
