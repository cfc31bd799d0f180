#ifndef STUB_PROTOCOMM_SECURITY2_H
#define STUB_PROTOCOMM_SECURITY2_H

#include "protocomm.h"

extern const protocomm_security_t protocomm_security2;

#endif
