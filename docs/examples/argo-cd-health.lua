-- Health of a MailRoute in Argo CD. Progressing while the operator has not done its part, Degraded if something is known to be
-- wrong. What pods have shown is in the route's other conditions.
local status = obj.status or {}
if status.observedGeneration ~= obj.metadata.generation then
  return {status = "Progressing", message = "The operator has not looked at this version of the route yet."}
end

local conditions = {}
for _, condition in ipairs(status.conditions or {}) do
  conditions[condition.type] = condition
end

local function holds(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

if holds("Stalled") then
  return {status = "Degraded", message = conditions.Stalled.message}
elseif holds("Reconciling") then
  return {status = "Progressing", message = conditions.Reconciling.message}
elseif conditions.Ready == nil then
  return {status = "Progressing", message = "The operator has not said yet whether the route is ready."}
elseif holds("Ready") then
  return {status = "Healthy", message = conditions.Ready.message}
end
return {status = "Degraded", message = conditions.Ready.message}
