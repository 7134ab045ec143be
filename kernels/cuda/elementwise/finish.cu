// The second stage of the sums of columns.
#include "columns.h"

NK_KERNELS(elementwise_finish, nk::cuda::kColumnThreads, 2, nk::cuda::FinishParams, nk::cuda::finish_columns<T>(p))
