-- One session a thread: each thread has one connection, with the Host and the Cookie of its line in the file.
local threads = 0

function setup(thread)
   thread:set("index", threads)
   threads = threads + 1
end

function init(args)
   local line_number = 0
   for line in io.lines(args[1]) do
      if line_number == index then
         local host, cookie = line:match("^(%S+) (.+)$")
         wrk.headers["Host"] = host
         wrk.headers["Cookie"] = cookie
         return
      end
      line_number = line_number + 1
   end
   error("there are fewer sessions than threads")
end
