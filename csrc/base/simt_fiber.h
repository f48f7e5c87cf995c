// simt_fiber.h: fibers with guarded stacks, for simt.h alone: switch between them without a system
// call.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <new>

#if defined(__SANITIZE_ADDRESS__)
#define HN_SIMT_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HN_SIMT_ASAN 1
#endif
#endif
#if defined(HN_SIMT_ASAN)
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define HN_SIMT_NO_ASAN __attribute__((no_sanitize("address")))
#else
#define HN_SIMT_NO_ASAN
#endif

#if !defined(HN_SIMT_UCONTEXT) && !defined(__x86_64__) && !defined(__aarch64__)
#define HN_SIMT_UCONTEXT 1
#endif
#if defined(HN_SIMT_UCONTEXT)
#include <ucontext.h>
#endif

// Push what the calling convention lets a callee change, swap stack pointers, pop the same from the
// other stack.
#if !defined(HN_SIMT_UCONTEXT)
extern "C" void hn_simt_switch(void** save, void* to);
#if defined(__x86_64__)
asm(R"(
  .text
  .weak hn_simt_switch
  .type hn_simt_switch,@function
hn_simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size hn_simt_switch,.-hn_simt_switch
)");
#else
asm(R"(
  .text
  .weak hn_simt_switch
  .type hn_simt_switch,%function
hn_simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x2, sp
  str x2, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size hn_simt_switch,.-hn_simt_switch
)");
#endif
#endif

namespace simt {

#if defined(HN_SIMT_ASAN)
constexpr size_t kStackBytes = 256 * 1024;  // instrumented frames are large
constexpr size_t kEntryBytes = 32 * 1024;   // of `entry` and what is inlined into it, a kernel's parameters too
#else
constexpr size_t kStackBytes = 64 * 1024;
#endif
constexpr size_t kRedZoneWords = 128;  // the low end of a stack: once written, the stack is too small
constexpr uint64_t kCanary = 0x5afe57acc0ffee00u;

// Equal stacks in one mapping, an inaccessible page below each.
class StackPool {
 public:
  StackPool() = default;
  StackPool(const StackPool&) = delete;
  StackPool& operator=(const StackPool&) = delete;
  ~StackPool() { release(); }

  void reserve(int count) {
    if (count <= count_) return;
    release();
    page_ = size_t(sysconf(_SC_PAGESIZE));
    bytes_ = size_t(count) * stride();
    void* p = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    base_ = static_cast<char*>(p);
    count_ = count;
    for (int i = 0; i < count; ++i) {
      if (mprotect(base_ + size_t(i) * stride(), page_, PROT_NONE) != 0) throw std::bad_alloc();
    }
    abandon();  // an earlier mapping at this address may have left its marks
  }

  char* low(int i) const { return base_ + size_t(i) * stride() + page_; }

  // Fibers were left where they stood: their frames must not be taken for live ones.
  void abandon() {
#if defined(HN_SIMT_ASAN)
    for (int i = 0; i < count_; ++i) __asan_unpoison_memory_region(low(i), kStackBytes);
#endif
  }

  // Before the first fiber on stack i.
  HN_SIMT_NO_ASAN void arm(int i) const {
    uint64_t* const zone = red_zone(i);
    for (size_t w = 0; w < kRedZoneWords; ++w) zone[w] = kCanary;
  }

  HN_SIMT_NO_ASAN bool intact(int i) const {
    const uint64_t* const zone = red_zone(i);
    uint64_t differs = 0;
    for (size_t w = 0; w < kRedZoneWords; ++w) differs |= zone[w] ^ kCanary;
    return differs == 0;
  }

 private:
  size_t stride() const { return page_ + kStackBytes; }
  uint64_t* red_zone(int i) const { return reinterpret_cast<uint64_t*>(low(i)); }
  void release() {
    if (base_) munmap(base_, bytes_);
    base_ = nullptr;
    count_ = 0;
  }

  char* base_ = nullptr;
  size_t page_ = 0, bytes_ = 0;
  int count_ = 0;
};

// A suspended flow of control: a fiber, or the scheduler on its own stack.
struct Context {
#if defined(HN_SIMT_UCONTEXT)
  ucontext_t machine;
#else
  void* stack_pointer = nullptr;
#endif
#if defined(HN_SIMT_ASAN)
  void* fake_stack = nullptr;
  const void* stack_low = nullptr;
  size_t stack_bytes = 0;
#endif
};

// Makes `c` start in `entry` on the given stack. `entry` never returns.
inline void arm_context(Context& c, char* low, void (*entry)()) {
#if defined(HN_SIMT_ASAN)
  // The fiber before this one was left in `entry`, whose frame is still poisoned.
  __asan_unpoison_memory_region(low + kStackBytes - kEntryBytes, kEntryBytes);
  c.fake_stack = nullptr;
  c.stack_low = low;
  c.stack_bytes = kStackBytes;
#endif
#if defined(HN_SIMT_UCONTEXT)
  getcontext(&c.machine);
  c.machine.uc_stack.ss_sp = low;
  c.machine.uc_stack.ss_size = kStackBytes;
  c.machine.uc_link = nullptr;
  makecontext(&c.machine, entry, 0);
#elif defined(__x86_64__)
  void** top = reinterpret_cast<void**>(low + kStackBytes);  // 16-byte aligned; a callee expects 8 off
  *--top = nullptr;
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--top = nullptr;
  c.stack_pointer = top;
#else
  void** top = reinterpret_cast<void**>(low + kStackBytes) - 20;
  for (int i = 0; i < 20; ++i) top[i] = nullptr;
  top[11] = reinterpret_cast<void*>(entry);  // x30, where `ret` goes
  c.stack_pointer = top;
#endif
}

// `ends`: `from` is never resumed.
inline void switch_context(Context& from, Context& to, bool ends = false) {
#if defined(HN_SIMT_ASAN)
  __sanitizer_start_switch_fiber(ends ? nullptr : &from.fake_stack, to.stack_low, to.stack_bytes);
#else
  (void)ends;
#endif
#if defined(HN_SIMT_UCONTEXT)
  swapcontext(&from.machine, &to.machine);
#else
  hn_simt_switch(&from.stack_pointer, to.stack_pointer);
#endif
#if defined(HN_SIMT_ASAN)
  __sanitizer_finish_switch_fiber(from.fake_stack, nullptr, nullptr);
#endif
}

// First words of a fiber; `from` is who switched to it.
inline void enter_fiber(Context& from) {
#if defined(HN_SIMT_ASAN)
  __sanitizer_finish_switch_fiber(nullptr, &from.stack_low, &from.stack_bytes);
#else
  (void)from;
#endif
}

}  // namespace simt
