#include "tensor/allocate.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "tensor/exchange.h"
#include "tensor/read.h"

namespace nk {

bool poison_new_tensors = false;

namespace {

dlpack::DataType dtype_to(DType t) {
    const auto bits = static_cast<uint8_t>(8 * size_of(t));
    switch (t) {
        case DType::f32:
        case DType::f64:
        case DType::f16:
            return {dlpack::kFloat, bits, 1};
        case DType::bf16:
            return {dlpack::kBfloat, bits, 1};
        case DType::u8:
            return {dlpack::kUInt, bits, 1};
        case DType::b8:
            return {dlpack::kBool, bits, 1};
        default:
            return {dlpack::kInt, bits, 1};
    }
}

// torch's own way past its argument parser and dispatcher, which would cost more than most small kernels; what
// Inductor's generated code allocates with. Null until set_allocator, and then for good.
PyObject* empty_strided_cpu = nullptr;
PyObject* empty_like = nullptr;
PyObject* torch_dtypes[kTypes] = {};

void* owned(PyObject* object) {
    if (object == nullptr) throw std::runtime_error("neurokern: can't allocate a tensor: " + take_python_error());
    return object;
}

PyObject* tuple_of(const int64_t* values, int n) {
    PyObject* tuple = PyTuple_New(n);
    for (int i = 0; i < n; ++i) PyTuple_SET_ITEM(tuple, i, PyLong_FromLongLong(values[i]));
    return tuple;
}

void* new_on_cpu(DType dtype, const int64_t* shape, const int64_t* stride, int ndim) {
    PyObject* args[] = {tuple_of(shape, ndim), tuple_of(stride, ndim), torch_dtypes[static_cast<int>(dtype)]};
    PyObject* object = PyObject_Vectorcall(empty_strided_cpu, args, 3, nullptr);
    Py_DECREF(args[0]), Py_DECREF(args[1]);
    return owned(object);
}

// Through the exchange API: any device, and twice as dear on the CPU.
void* new_by_exchange(Device device, DType dtype, int64_t* shape, int64_t* stride, int ndim) {
    dlpack::Tensor prototype{};
    prototype.device = {device.kind == Device::cpu ? dlpack::kCPU : dlpack::kCUDA, device.index};
    prototype.ndim = ndim;
    prototype.dtype = dtype_to(dtype);
    prototype.shape = shape, prototype.strides = stride;
    dlpack::ManagedTensorVersioned* managed = nullptr;
    std::string why;
    const dlpack::ExchangeApi* exchange = known_exchange();
    const auto keep = [](void* text, const char*, const char* message) { *static_cast<std::string*>(text) = message; };
    if (exchange->allocate(&prototype, &managed, &why, keep) != 0) {
        PyErr_Clear();
        throw std::runtime_error("neurokern: can't allocate a tensor: " + why.substr(0, why.find('\n')));
    }
    void* object = nullptr;
    if (exchange->managed_to_object(managed, &object) != 0) object = nullptr;
    return owned(static_cast<PyObject*>(object));
}

// Large fresh memory in pages of 2 MiB, where the machine has them for the asking: one page fault instead of 512.
// From the size on that malloc takes fresh pages each time; what is smaller lies in the heap, among memory in use.
constexpr int64_t kHugeFrom = int64_t{32} << 20;
void ask_for_huge_pages(void* data, int64_t bytes) {
#ifdef MADV_HUGEPAGE
    constexpr uintptr_t page = 4096;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>(bytes)) / page * page;
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: no harm where it is refused
#else
    (void)data, (void)bytes;
#endif
}

// A new tensor of so many bytes on its way to the caller.
void* ready(void* object, Device device, int64_t bytes) {
    if (device.kind != Device::cpu || (!poison_new_tensors && bytes < kHugeFrom)) return object;
    TensorView t;
    read_tensor(object, "empty", "out", t);
    if (bytes >= kHugeFrom) ask_for_huge_pages(t.data, bytes);
    if (poison_new_tensors && bytes > 0) std::memset(t.data, 0xff, static_cast<size_t>(bytes));
    return object;
}

}  // namespace

void set_allocator(void* empty_strided, void* like, void* const* dtypes) {
    empty_strided_cpu = static_cast<PyObject*>(empty_strided);
    empty_like = static_cast<PyObject*>(like);
    for (int i = 0; i < kTypes; ++i) torch_dtypes[i] = static_cast<PyObject*>(dtypes[i]);
}

void* new_tensor(const TensorView& like, const int64_t* shape, int ndim) {
    return new_tensor(like, like.dtype, shape, ndim);
}

void* new_tensor(const TensorView& like, DType dtype, const int64_t* shape, int ndim) {
    int64_t strides[kMaxDims];
    int64_t step = 1;
    for (int i = ndim - 1; i >= 0; --i) {
        strides[i] = step;
        step *= std::max<int64_t>(shape[i], 1);
    }
    return new_strided(like, dtype, shape, strides, ndim);
}

void* new_strided(const TensorView& like, DType dtype, const int64_t* shape, const int64_t* stride, int ndim) {
    int64_t sizes[kMaxDims], strides[kMaxDims];
    int64_t elements = 1;
    for (int i = 0; i < ndim; ++i) {
        sizes[i] = shape[i], strides[i] = stride[i];
        elements *= shape[i];
    }
    const bool quick = empty_strided_cpu != nullptr && like.device.kind == Device::cpu;
    void* object =
        quick ? new_on_cpu(dtype, sizes, strides, ndim) : new_by_exchange(like.device, dtype, sizes, strides, ndim);
    return ready(object, like.device, elements * size_of(dtype));
}

void* new_like(void* object, const TensorView& like) {
    const int64_t bytes = like.numel() * size_of(like.dtype);
    const bool quick = empty_strided_cpu != nullptr && like.device.kind == Device::cpu && is_floating(like.dtype) &&
                       like.is_contiguous();
    if (quick) return ready(new_on_cpu(like.dtype, like.shape, like.stride, like.ndim), like.device, bytes);
    if (empty_like == nullptr) return new_tensor(like, like.shape, like.ndim);
    return ready(owned(PyObject_CallOneArg(empty_like, static_cast<PyObject*>(object))), like.device, bytes);
}

}  // namespace nk
