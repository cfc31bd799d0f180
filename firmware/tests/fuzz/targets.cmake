# The fuzz targets, one a line (CMakeLists.txt); nothing is found by itself.
towline_fuzz(conversation)
towline_fuzz(frame)
towline_fuzz(http)
towline_fuzz(image)
towline_fuzz(json)
towline_fuzz(jws)
towline_fuzz(told)
