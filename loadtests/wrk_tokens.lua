-- Requests that take turns with the tokens of a file, one a line: each token may ask only so often.
local requests, last = {}, 0

function init(args)
  for token in io.lines(args[1]) do
    wrk.headers["Authorization"] = "Bearer " .. token
    requests[#requests + 1] = wrk.format("GET")
  end
end

function request()
  last = last % #requests + 1
  return requests[last]
end
