// Signals during a launch: what the checks cannot see ends the launch, not the process.
#pragma once

#include <signal.h>
#include <time.h>

namespace vqcc_emulator {

constexpr int fault_signals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
constexpr int fault_signal_count = 4;

// While it lives, faults of the running fiber (an overflow of its stack, a division by zero) leave through fault_exit.
class FaultGuard {
 public:
  FaultGuard();
  ~FaultGuard();
  FaultGuard(const FaultGuard&) = delete;
  FaultGuard& operator=(const FaultGuard&) = delete;

 private:
  stack_t old_stack_ = {};
  struct sigaction old_actions_[fault_signal_count] = {};
};

// Ends a loop that neither accesses memory nor synchronizes, so that no step is ever counted: such code is given
// `patience` seconds without a step. It only ever looks at code of the kernel, never interrupts the runtime.
class Watchdog {
 public:
  Watchdog();
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  static constexpr int patience = 10;

 private:
  bool armed_ = false;
  timer_t timer_ = {};
  struct sigaction old_action_ = {};
};

}  // namespace vqcc_emulator
