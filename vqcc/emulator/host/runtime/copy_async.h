// Asynchronous copies: what a thread started and has not waited for.
#pragma once

#include "state.h"

namespace vqcc_emulator {

void clear_pending_copies();
void check_no_pending_copies(const Thread& thread);

}  // namespace vqcc_emulator
