// The module of a kernel.
#pragma once

namespace vqcc_emulator {

// Finds where the module that a function belongs to lies, and what it calls.
void find_image(void* function);

}  // namespace vqcc_emulator
