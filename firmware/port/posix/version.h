/* What this build of the simulator calls itself. */
#ifndef TOWLINE_POSIX_VERSION_H
#define TOWLINE_POSIX_VERSION_H

#ifndef TL_SIMULATOR_VERSION
#define TL_SIMULATOR_VERSION "0.1.0"
#endif
#define TL_SIMULATOR_HARDWARE "simulator"
#ifndef TL_SIMULATOR_SECURITY
#define TL_SIMULATOR_SECURITY 0
#endif

#endif
