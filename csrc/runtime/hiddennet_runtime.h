/* A network runs from its file: the C interface. No call throws; what goes wrong is text of hn_error(). */
#ifndef HIDDENNET_RUNTIME_H
#define HIDDENNET_RUNTIME_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define HN_API __attribute__((visibility("default")))

typedef struct hn_network hn_network;

/* How numbers of an image lie: [channels][height][width] or [height][width][channels]. */
enum { HN_NCHW = 0, HN_NHWC = 1 };

/* Whether plans may round to bfloat16: no, yes, where the processor multiplies tiles of them. */
enum { HN_BF16_OFF = 0, HN_BF16_ON = 1, HN_BF16_AUTO = -1 };

/* The network at `path`, or NULL. threads: 0 for as many as there are cores, or what HIDDENNET_THREADS says. */
HN_API hn_network* hn_load(const char* path, int threads, int bf16);

/* The dimensions of one input and of one output without the batch: returns how many, 1 to 3, in the order of HN_NCHW. */
HN_API int hn_input_shape(const hn_network* network, int64_t dims[3]);
HN_API int hn_output_shape(const hn_network* network, int64_t dims[3]);

/* y = network(x) for `batch` inputs, both in that layout; 0, or -1 where it did not run. Threads may share a network. */
HN_API int hn_run(hn_network* network, const float* x, int64_t batch, int layout, float* y);

HN_API void hn_free(hn_network* network);

/* What went wrong in this thread's last call that failed, in one sentence. */
HN_API const char* hn_error(void);

#ifdef __cplusplus
}
#endif

#endif
