// test_ptx.cpp: the PTX interpreter itself: instructions by the ISA's words, and that it lets no mistake of a kernel pass.
#include <cmath>
#include <memory>

#include "check.h"
#include "instructions.h"

namespace {

using ptx::Dim;
using ptx::Error;

// A kernel of one pointer, `out`, which the code finds in %out; and a buffer of words to point at.
struct Program {
  std::map<std::string, ptx::Kernel> kernels;
  std::vector<uint32_t> memory;

  explicit Program(const std::string& code, size_t words = 64) : memory(words + 16, 7) {
    const std::string head = ".visible .entry k(\n .param .u64 k_param_0\n)\n{ .reg .b64 %rd<9>;\n";
    const std::string shared = ".shared .align 16 .b8 tile[1024];\n ld.param.u64 %out, [k_param_0];\n";
    kernels = ptx::Parser(head + shared + code + "\n ret;\n}\n").kernels();
    ptx::allocations()[begin()] = 4 * words;
    const uint64_t pointer = begin();
    std::memcpy(kernels.at("k").arguments.data(), &pointer, sizeof pointer);
  }
  ~Program() { ptx::allocations().erase(begin()); }
  Program(const Program&) = delete;

  uint64_t begin() const { return (uint64_t(memory.data()) + 31) / 32 * 32; }
  uint32_t* words() const { return reinterpret_cast<uint32_t*>(begin()); }
  void run(unsigned threads = 1, unsigned blocks = 1, uint64_t seed = 1) {
    ptx::Machine(kernels.at("k"), {blocks, 1, 1}, {threads, 1, 1}, 0, seed, 50'000).run();
  }
};

// The word that one thread leaves in %r0.
uint32_t word_of(const std::string& code) {
  Program p(code + "\n st.global.u32 [%out], %r0;");
  p.run();
  return p.words()[0];
}

TEST(shared_memory_has_addresses_among_all) {
  const std::string store =
      "mov.u32 %r1, tile; cvt.u64.u32 %rd1, %r1; cvta.shared.u64 %rd2, %rd1; st.u32 [%rd2+8], 17;";
  CHECK_EQ(word_of(store + "ld.shared.u32 %r0, [%r1+8];"), 17u);
  CHECK_EQ(word_of(store + "cvta.to.shared.u64 %rd3, %rd2; cvt.u32.u64 %r2, %rd3; ld.shared.u32 %r0, [%r2+8];"), 17u);
  CHECK_THROWS(Error, "outside of shared memory", word_of(store + "st.u32 [%rd2+1024], 1;"));
}

TEST(integers_wrap_shift_and_compare) {
  CHECK_EQ(word_of("mov.u32 %r1, -1; add.s32 %r0, %r1, -1;"), 0xfffffffeu);
  CHECK_EQ(word_of("mov.u32 %r1, 0x80000000; shr.s32 %r0, %r1, 40;"), 0xffffffffu);
  CHECK_EQ(word_of("mov.u32 %r1, 3; shl.b32 %r0, %r1, 32;"), 0u);
  CHECK_EQ(word_of("mov.u32 %r1, 0xffffffff; mul.hi.u32 %r0, %r1, %r1;"), 0xfffffffeu);
  CHECK_EQ(word_of("mov.u32 %r1, -2; mul.wide.s32 %rd1, %r1, 3; shr.u64 %rd2, %rd1, 32; cvt.u32.u64 %r0, %rd2;"),
           0xffffffffu);
  CHECK_EQ(word_of("mov.u32 %r1, -7; div.s32 %r2, %r1, 2; rem.s32 %r3, %r1, 2; sub.s32 %r0, %r2, %r3;"), uint32_t(-2));
  CHECK_EQ(word_of("mov.u32 %r1, -1; setp.lt.s32 %p1, %r1, 1; selp.b32 %r0, 5, 6, %p1;"), 5u);
  CHECK_EQ(word_of("mov.u32 %r1, -1; setp.lt.u32 %p1, %r1, 1; selp.b32 %r0, 5, 6, %p1;"), 6u);
  CHECK_EQ(word_of("mov.pred %p1, -1; not.pred %p2, %p1; selp.b32 %r0, 5, 6, %p2;"), 6u);
  CHECK_EQ(word_of("mov.u32 %r0, 1; mov.pred %p1, 0; @%p1 bra $L1; mov.u32 %r0, 2;\n$L1: @!%p1 add.s32 %r0, %r0, 8;"),
           10u);
  CHECK_THROWS(Error, "division by zero", word_of("mov.u32 %r1, 0; rem.u32 %r0, 5, %r1;"));
}

TEST(bits_are_moved_as_the_isa_says) {
  CHECK_EQ(word_of("prmt.b32 %r0, 0x44332211, 0x88776655, 0x8074;"), 0x00118855u & 0x00ffffffu);
  CHECK_EQ(word_of("mov.u32 %r1, 0x5; bfi.b32 %r0, %r1, 0, 8, 3;"), 0x500u);
  CHECK_EQ(word_of("mov.u32 %r1, 0x00f00000; bfind.shiftamt.u32 %r0, %r1;"), 8u);
  CHECK_EQ(word_of("mov.u32 %r1, 1; brev.b32 %r0, %r1;"), 0x80000000u);
  CHECK_EQ(word_of("clz.b32 %r0, 1;"), 31u);
  CHECK_EQ(word_of("popc.b32 %r0, 0xf0f0;"), 8u);
  CHECK_EQ(word_of("shf.l.wrap.b32 %r0, 0x80000000, 1, 33;"), 3u);
  CHECK_EQ(word_of("mov.b64 %rd1, {3, 4}; mov.b64 {%r1, %r2}, %rd1; sub.s32 %r0, %r2, %r1;"), 1u);
}

TEST(floats_round_once_and_make_one_nan) {
  CHECK_EQ(word_of("add.rn.f32 %r0, 0f7F800000, 0fFF800000;"), 0x7fffffffu);
  CHECK_EQ(word_of("mov.f32 %r0, 0fFFC00001;"), 0xffc00001u);
  CHECK_EQ(word_of("mul.rn.f32 %r0, 0f3FC00000, 0fC0000000;"), 0xc0400000u);  // 1.5 * -2
  CHECK_EQ(word_of("fma.rm.f32 %r0, 0f3F800000, 0f3F800000, 0f33000000;"), 0x3f800000u);
  CHECK_EQ(word_of("cvt.rn.bf16x2.f32 %r0, 0f3F808000, 0f3F818000;"), 0x3f803f82u);  // ties to even
  CHECK_EQ(word_of("setp.neu.f32 %p1, 0f7FC00000, 0f7FC00000; selp.b32 %r0, 1, 0, %p1;"), 1u);
  CHECK_EQ(word_of("setp.lt.f32 %p1, 0f7FC00000, 0f3F800000; selp.b32 %r0, 1, 0, %p1;"), 0u);
}

TEST(lanes_exchange_votes_and_match) {
  Program p(
      "mov.u32 %r1, %tid.x; mul.wide.u32 %rd1, %r1, 4; add.s64 %rd2, %out, %rd1; and.b32 %r6, %r1, 3;"
      "shfl.sync.up.b32 %r2|%p1, %r1, 1, 0, -1; selp.b32 %r3, %r2, 99, %p1;"
      "setp.lt.u32 %p2, %r1, 5; vote.sync.ballot.b32 %r4, %p2, -1; match.any.sync.b32 %r7, %r6, -1;"
      "redux.sync.max.u32 %r8, %r1, -1; add.s32 %r3, %r3, %r4; add.s32 %r3, %r3, %r8; and.b32 %r7, %r7, 0xffff;"
      "add.s32 %r3, %r3, %r7; st.global.u32 [%rd2], %r3;");
  p.run(32);
  for (unsigned l = 0; l < 32; ++l) {
    CHECK_EQ(p.words()[l], (l == 0 ? 99 : l - 1) + 31u + 31u + (0x1111u << (l % 4)));
  }
}

TEST(a_matrix_product_is_one) {
  // one element of A and of B is not 0: which of D is?
  for (const auto& place : {std::pair<int, int>{0, 0}, {5, 3}, {13, 9}, {15, 15}}) {
    const int row = place.first, k = place.second, column = 6;
    const int a_lane = row % 8 * 4 + k % 8 / 2, a_word = row / 8 + 2 * (k / 8);
    const int b_lane = column * 4 + k % 8 / 2, b_word = k / 8;
    std::string code = "mov.u32 %r9, %tid.x; mul.wide.u32 %rd1, %r9, 16; add.s64 %rd2, %out, %rd1;";
    const auto words = [&](const char* name, int count, int lane, int word) {
      for (int w = 0; w < count; ++w) {
        const int value = w == word ? 0x3f80 << (k % 2 * 16) : 0;  // 1.0
        code += "setp.eq.s32 %p1, %r9, " + std::to_string(lane) + "; selp.b32 %" + name + std::to_string(w) + ", " +
                std::to_string(value) + ", 0, %p1;";
      }
    };
    words("a", 4, a_lane, a_word);
    words("b", 2, b_lane, b_word);
    Program p(code +
                  "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%d0,%d1,%d2,%d3}, {%a0,%a1,%a2,%a3}, "
                  "{%b0,%b1}, {0f00000000,0f00000000,0f00000000,0f00000000};"
                  "st.global.v4.f32 [%rd2], {%d0,%d1,%d2,%d3};",
              128);
    p.run(32);
    for (int i = 0; i < 128; ++i) {
      const int lane = i / 4, n = i % 4;
      const bool here = lane / 4 + n / 2 * 8 == row && lane % 4 * 2 + n % 2 == column;
      CHECK_EQ(p.words()[i], here ? 0x3f800000u : 0u);
    }
  }
}

// Block 0 writes a word and raises a flag; block 1 waits for it and reads the word. Counts what it read.
int stale_reads(const std::string& store, const std::string& load) {
  int stale = 0;
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Program p(
        "ld.global.u32 %r5, [%out]; mov.u32 %r1, %ctaid.x; setp.eq.s32 %p1, %r1, 0; @%p1 bra $WRITE;\n"
        "$WAIT: " +
        load +
        " %r2, [%out+32]; setp.ne.s32 %p2, %r2, 1; nanosleep.u32 10; @%p2 bra $WAIT;"
        "ld.global.u32 %r3, [%out]; st.global.u32 [%out+64], %r3; ret;\n"
        "$WRITE: st.global.u32 [%out], 42; " +
        store + " [%out+32], 1;");
    try {
      p.run(1, 2, seed);
    } catch (const Error& e) {
      if (std::string(e.what()).find("too many steps") == std::string::npos) throw;
      continue;  // one resident block, and it waits: nothing is read
    }
    stale += p.words()[16] != 42;
  }
  return stale;
}

TEST(memory_is_weak_until_released_and_acquired) {
  CHECK_EQ(stale_reads("st.release.gpu.global.u32", "ld.acquire.gpu.global.u32"), 0);
  CHECK(stale_reads("st.relaxed.gpu.global.u32", "ld.acquire.gpu.global.u32") > 0);
  CHECK(stale_reads("st.release.gpu.global.u32", "ld.relaxed.gpu.global.u32") > 0);
}

// Every thread writes its word of shared memory and reads its neighbour's. Counts wrong ones.
int wrong_neighbours(const std::string& between) {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    Program p(
        "mov.u32 %r1, %tid.x; shl.b32 %r2, %r1, 2; mov.u32 %r3, tile; add.s32 %r4, %r3, %r2;"
        "st.shared.u32 [%r4], %r1;" +
        between +
        "xor.b32 %r5, %r2, 128; add.s32 %r6, %r3, %r5; ld.shared.u32 %r7, [%r6];"
        "cvt.u64.u32 %rd1, %r2; add.s64 %rd2, %out, %rd1; st.global.u32 [%rd2], %r7;");
    p.run(64, 1, seed);
    for (unsigned t = 0; t < 64; ++t) wrong += p.words()[t] != (t ^ 32);
  }
  return wrong;
}

TEST(a_barrier_orders_shared_memory_and_its_lack_does_not) {
  CHECK_EQ(wrong_neighbours("bar.sync 0;"), 0);
  CHECK(wrong_neighbours("") > 0);
  CHECK(wrong_neighbours("bar.warp.sync -1;") > 0);
}

int wrong_copies(const std::string& wait) {
  int wrong = 0;
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    Program p("mov.u32 %r1, tile; cp.async.ca.shared.global [%r1], [%out], 4, 4; cp.async.commit_group;" + wait +
              "ld.shared.u32 %r2, [%r1]; st.global.u32 [%out+4], %r2;");
    p.words()[0] = 1234;
    p.run(1, 1, seed);
    wrong += p.words()[1] != 1234;
  }
  return wrong;
}

TEST(an_asynchronous_copy_is_there_after_its_wait) {
  CHECK_EQ(wrong_copies("cp.async.wait_group 0;"), 0);
  CHECK(wrong_copies("cp.async.wait_group 1;") > 0);
  CHECK(wrong_copies("") > 0);
}

TEST(what_a_gpu_cannot_do_is_an_error) {
  const auto run = [](const std::string& code, unsigned threads) { Program(code).run(threads); };
  const std::string lane = "mov.u32 %r1, %tid.x; setp.eq.s32 %p1, %r1, 3;";
  CHECK_THROWS(Error, "outside of every buffer", run("ld.global.u32 %r1, [%out+256];", 1));
  CHECK_THROWS(Error, "outside of every buffer", run("st.global.u32 [%out+-4], 1;", 1));
  CHECK_THROWS(Error, "outside of shared memory", run("ld.shared.u32 %r1, [1024];", 1));
  CHECK_THROWS(Error, "misaligned", run("ld.global.v4.u32 {%r1,%r2,%r3,%r4}, [%out+8];", 1));
  CHECK_THROWS(Error, "deadlock", run(lane + "@%p1 bar.warp.sync 15; @!%p1 bar.sync 0;", 32));
  CHECK_THROWS(Error, "a lane that is not there", run(lane + "@%p1 ret; bar.warp.sync -1;", 32));
  CHECK_THROWS(Error, "its own mask does not name", run(lane + "bar.warp.sync 7;", 32));
  CHECK_THROWS(Error, "outside its mask", run("shfl.sync.idx.b32 %r2|%p2, %r1, 9, 31, 255;", 8));
  CHECK_THROWS(Error, "does not know", run("sin.approx.f32 %f1, %f2;", 1));
  CHECK_THROWS(Error, "too many steps", run("$L: bra $L;", 1));
}

}  // namespace
