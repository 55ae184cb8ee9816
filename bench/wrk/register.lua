-- Arguments: PASSWORD FILE. Users register, one after the other; each answer is a line of the file.

dofile("report.lua")

local password, file, last = "", nil, 0

function init(args)
  password, file = args[1], io.open(args[2], "w")
  wrk.method = "POST"
  wrk.headers["Content-Type"] = "application/json"
  -- Its answers are the result.
  statuses = {}
  function response(status, _, body)
    local key = tostring(status)
    statuses[key] = (statuses[key] or 0) + 1
    if status == 201 then
      file:write(body, "\n")
    end
  end
end

function request()
  last = last + 1
  return wrk.format(nil, nil, nil, string.format('{"username":"bench-%d","password":"%s"}', last, password))
end
