-- Health of an AppRegistration for Argo CD, from the conditions of kstatus.
local waiting = { status = "Progressing", message = "waiting for appreg" }
local status = obj.status
if status == nil or status.observedGeneration ~= obj.metadata.generation then
  return waiting
end
local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  if condition.status == "True" then
    conditions[condition.type] = condition
  end
end
if conditions.Stalled then
  return { status = "Degraded", message = conditions.Stalled.message }
end
if conditions.Reconciling then
  return { status = "Progressing", message = conditions.Reconciling.message }
end
if conditions.Ready then
  return { status = "Healthy", message = conditions.Ready.message }
end
return waiting
