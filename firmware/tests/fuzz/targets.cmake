# The fuzz targets, one a line (CMakeLists.txt); nothing is found by itself.
