// check.h: host-side checks. The message grammar is: <op>: expected <what>, got <value>[; <the way out>].
//
// The public Python functions refuse bad input first, with ValueError or TypeError; these checks are the last line, so
// that a raw op call ends in a RuntimeError and never in a crash.
#pragma once
#include <torch/headeronly/util/Exception.h>

#define HN_CHECK(condition, ...) STD_TORCH_CHECK(condition, __VA_ARGS__)
