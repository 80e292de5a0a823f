// Included before every kernel source that is compiled for the emulator: what a CUDA compiler gives without an
// #include.
//
// Light on purpose: no C++ library header is read, because hundreds of kernels are compiled in a test run.
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "vqcc_emulator/qualifiers.h"
#include "vqcc_emulator/interface.h"
#include "vqcc_emulator/vectors.h"
#include "vqcc_emulator/bits.h"
#include "vqcc_emulator/math.h"
#include "vqcc_emulator/sync.h"
#include "vqcc_emulator/atomics.h"
#include "vqcc_emulator/kernel.h"
