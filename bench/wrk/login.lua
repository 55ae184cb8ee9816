-- Arguments: USERS PASSWORD. The users bench-1 to bench-USERS log in, one after the other, with that password.

dofile("report.lua")

local users, password, last = 1, "", 0

function init(args)
  users, password = tonumber(args[1]), args[2]
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  count_statuses()
end

function request()
  last = last % users + 1
  return wrk.format(nil, nil, nil, string.format('{"username":"bench-%d","password":"%s"}', last, password))
end
