-- Arguments: METHOD FILE once|again. A token of the file, one a line, goes with each request in turn; after the last
-- one the load ends (once), or begins anew (again). For one thread: each would read the whole file.

dofile("report.lua")

local tokens, sent, head, tail, is_once = {}, 0

function init(args)
  local method, file = args[1], args[2]
  is_once = args[3] == "once"
  for line in io.lines(file) do
    tokens[#tokens + 1] = line
  end
  head = method .. " " .. wrk.path .. " HTTP/1.1\r\nHost: " .. wrk.headers["Host"] .. "\r\nAuthorization: Bearer "
  tail = (method == "POST" and "\r\nContent-Length: 0" or "") .. "\r\n\r\n"
  count_statuses()
end

function request()
  if sent == #tokens then
    sent = 0
    if is_once then
      wrk.thread:stop()
    end
  end
  sent = sent + 1
  return head .. tokens[sent] .. tail
end
