-- Sends a body of so many bytes. Arguments: the number.

dofile("report.lua")

function init(arguments)
  wrk.method = "POST"
  wrk.body = string.rep("x", tonumber(arguments[1]))
end
