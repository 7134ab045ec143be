// Every matmul kernel takes one MatmulParams by value.
#include "kernels/cuda/matmul/params.h"
#include "runtime.h"

void call_matmul_kernel(void* function, void** arguments) {
    using nk::cuda::MatmulParams;
    reinterpret_cast<void (*)(MatmulParams)>(function)(*static_cast<MatmulParams*>(arguments[0]));
}
