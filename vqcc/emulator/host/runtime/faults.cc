#include "faults.h"

#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#include "fail.h"

#ifndef sigev_notify_thread_id  // a name that older C libraries lack
#define sigev_notify_thread_id _sigev_un._tid
#endif

namespace vqcc_emulator {

namespace {

alignas(16) unsigned char signal_stack[64 * 1024];  // a fiber that overflowed its own has no room for a handler
int64_t steps_at_last_tick;
int ticks_without_step;

// Where the fiber was, or 0 if that is not code of the kernel.
Site interrupted_site(void* context) {
  uintptr_t pc = 0;
#if defined(__x86_64__)
  pc = static_cast<uintptr_t>(static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP]);
#elif defined(__aarch64__)
  pc = static_cast<uintptr_t>(static_cast<ucontext_t*>(context)->uc_mcontext.pc);
#else
  (void)context;
#endif
  return pc >= launch.image_low && pc < launch.image_high ? static_cast<Site>(pc - launch.image_low) : 0;
}

void on_fault(int signal, siginfo_t* info, void* context) {
  if (current == nullptr) {
    ::signal(signal, SIG_DFL);  // not a fiber's: the instruction runs again and ends the process as it would have
    return;
  }
  const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  const uintptr_t stack = reinterpret_cast<uintptr_t>(current->stack);
  const bool overflow = signal == SIGSEGV && address < stack && address >= stack - guard_bytes;
  const ErrorKind kind = overflow           ? ErrorKind::stack_overflow
                         : signal == SIGFPE ? ErrorKind::division_by_zero
                                            : ErrorKind::fault;
  new_failure(kind, interrupted_site(context)).address = address;
  siglongjmp(fault_exit, 1);
}

void on_tick(int, siginfo_t*, void* context) {
  if (launch.steps_left != steps_at_last_tick) {
    steps_at_last_tick = launch.steps_left;
    ticks_without_step = 0;
    return;
  }
  const Site site = interrupted_site(context);
  if (++ticks_without_step >= Watchdog::patience && current != nullptr && site != 0) {
    new_failure(ErrorKind::step_limit, site);
    siglongjmp(fault_exit, 1);
  }
}

int tick_signal() { return SIGRTMAX - 2; }

}  // namespace

FaultGuard::FaultGuard() {
  stack_t stack = {};
  stack.ss_sp = signal_stack;
  stack.ss_size = sizeof(signal_stack);
  sigaltstack(&stack, &old_stack_);
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (int i = 0; i < fault_signal_count; ++i) {
    sigaction(fault_signals[i], &action, &old_actions_[i]);
  }
}

FaultGuard::~FaultGuard() {
  for (int i = 0; i < fault_signal_count; ++i) {
    sigaction(fault_signals[i], &old_actions_[i], nullptr);
  }
  sigaltstack(&old_stack_, nullptr);
}

Watchdog::Watchdog() {
  steps_at_last_tick = -1;
  ticks_without_step = 0;
  struct sigaction action = {};
  action.sa_sigaction = on_tick;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART;
  sigaction(tick_signal(), &action, &old_action_);
  sigevent event = {};
  event.sigev_notify = SIGEV_THREAD_ID;
  event.sigev_signo = tick_signal();
  event.sigev_notify_thread_id = static_cast<int>(syscall(SYS_gettid));
  itimerspec interval = {};
  interval.it_value.tv_sec = interval.it_interval.tv_sec = 1;
  armed_ = timer_create(CLOCK_MONOTONIC, &event, &timer_) == 0 && timer_settime(timer_, 0, &interval, nullptr) == 0;
}

Watchdog::~Watchdog() {
  if (armed_) {
    timer_delete(timer_);
  }
  sigaction(tick_signal(), &old_action_, nullptr);
}

}  // namespace vqcc_emulator
