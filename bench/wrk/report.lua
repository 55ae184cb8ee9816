-- Prints what wrk measured as one line of JSON, which load.py reads. The other scripts here build on it.

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

function done(summary, latency, _)
  local statuses = {}
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses") or {}) do
      statuses[#statuses + 1] = string.format('"%s":%d', status, count)
    end
  end
  local errors = summary.errors
  print(string.format(
    'REPORT {"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"refused":%d,"broken":%d,"statuses":{%s}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout, table.concat(statuses, ",")))
end

-- Called by a script's init, where it wants to know each answer's status: it costs the client some time.
function count_statuses()
  statuses = {}
  function response(status)
    local key = tostring(status)
    statuses[key] = (statuses[key] or 0) + 1
  end
end
