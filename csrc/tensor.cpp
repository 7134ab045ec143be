#include "tensor.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include <algorithm>
#include <cstring>

#include "check.h"
#include "dlpack.h"

namespace nk {

namespace {

// The exchange table hangs on the tensor's class; torch.Tensor and its subclasses share one.
struct ApiCache {
    PyTypeObject* type = nullptr;
    const dlpack::ExchangeApi* api = nullptr;
};
ApiCache cache[2];                            // torch.Tensor and Parameter, as a rule
const dlpack::ExchangeApi* latest = nullptr;  // for questions about streams

const dlpack::ExchangeApi* find_api(PyObject* object, const char* op, const char* argument) {
    PyTypeObject* type = Py_TYPE(object);
    for (const ApiCache& c : cache)
        if (c.type == type) return c.api;
    PyObject* capsule = PyObject_GetAttrString(reinterpret_cast<PyObject*>(type), "__dlpack_c_exchange_api__");
    if (capsule == nullptr) {
        PyErr_Clear();
        fail_type(op, "argument ", argument, " is a ", type->tp_name, ", expected a torch.Tensor of torch >= 2.10");
    }
    auto* api = static_cast<const dlpack::ExchangeApi*>(PyCapsule_GetPointer(capsule, "dlpack_exchange_api"));
    Py_DECREF(capsule);
    while (api != nullptr && api->version.major != 1) api = api->previous;
    if (api == nullptr || api->view_from_object == nullptr) {
        PyErr_Clear();
        fail_type(op, "argument ", argument, " is a ", type->tp_name, " whose DLPack exchange API is not version 1");
    }
    cache[1] = cache[0];
    Py_INCREF(type);  // the cache keeps the class alive, so that its address can't be reused
    cache[0] = {type, api};
    latest = api;
    return api;
}

bool dtype_from(dlpack::DataType t, DType& out) {
    if (t.lanes != 1) return false;
    switch (t.code) {
        case dlpack::kFloat:
            if (t.bits == 32) return out = DType::f32, true;
            if (t.bits == 64) return out = DType::f64, true;
            if (t.bits == 16) return out = DType::f16, true;
            return false;
        case dlpack::kBfloat:
            return out = DType::bf16, t.bits == 16;
        case dlpack::kInt:
            if (t.bits == 64) return out = DType::i64, true;
            if (t.bits == 32) return out = DType::i32, true;
            return out = DType::i8, t.bits == 8;
        case dlpack::kUInt:
            return out = DType::u8, t.bits == 8;
        case dlpack::kBool:
            return out = DType::b8, t.bits == 8;
        default:
            return false;
    }
}

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

// What Python says went wrong, cleared; torch appends its C++ stack after the first line.
std::string take_python_error() {
    std::string why = "unknown";
    PyObject *type, *value, *trace;
    PyErr_Fetch(&type, &value, &trace);
    if (PyObject* text = value ? PyObject_Str(value) : nullptr) {
        if (const char* utf8 = PyUnicode_AsUTF8(text)) why = utf8;
        why = why.substr(0, why.find('\n'));
        Py_DECREF(text);
    }
    Py_XDECREF(type), Py_XDECREF(value), Py_XDECREF(trace);
    PyErr_Clear();
    return why;
}

// Dense: the elements fill their extent with neither gap nor repetition, in some order of dimensions.
bool is_dense(const TensorView& t) {
    int64_t span = 1;
    for (int i = 0; i < t.ndim; ++i) span += (t.shape[i] - 1) * t.stride[i];
    return span == t.numel() && !overlaps_itself(t);
}

}  // namespace

std::string to_string(Device device) { return device.kind == Device::cpu ? "cpu" : concat("cuda:", device.index); }

std::string shape_string(const TensorView& t) { return shape_string(t.shape, t.ndim); }

std::string shape_string(const int64_t* sizes, int ndim) {
    std::ostringstream s;
    s << '[';
    for (int i = 0; i < ndim; ++i) s << (i ? ", " : "") << sizes[i];
    s << ']';
    return s.str();
}

std::pair<const char*, const char*> extent(const TensorView& t) {
    int64_t low = 0, high = 0;
    for (int i = 0; i < t.ndim; ++i) (t.stride[i] < 0 ? low : high) += (t.shape[i] - 1) * t.stride[i];
    const char* base = static_cast<const char*>(t.data);
    const int64_t size = size_of(t.dtype);
    return {base + low * size, base + (high + 1) * size};
}

bool overlaps_itself(const TensorView& t) {
    if (t.is_contiguous()) return false;
    int order[kMaxDims];
    int n = 0;
    for (int i = 0; i < t.ndim; ++i) {
        if (t.shape[i] == 0) return false;
        if (t.shape[i] > 1) order[n++] = i;
    }
    std::sort(order, order + n, [&](int a, int b) { return t.stride[a] < t.stride[b]; });
    int64_t reach = 0;  // largest offset that the dimensions so far can address
    for (int k = 0; k < n; ++k) {
        if (t.stride[order[k]] <= reach) return true;
        reach += (t.shape[order[k]] - 1) * t.stride[order[k]];
    }
    return false;
}

Overlap overlap(const TensorView& a, const TensorView& b) {
    if (a.data == nullptr || b.data == nullptr || a.numel() == 0 || b.numel() == 0) return Overlap::none;
    const auto [a0, a1] = extent(a);
    const auto [b0, b1] = extent(b);
    if (a1 <= b0 || b1 <= a0) return Overlap::none;
    if (a.data == b.data && a.dtype == b.dtype && a.same_shape(b)) {
        bool same = true;
        for (int i = 0; i < a.ndim; ++i) same = same && (a.shape[i] == 1 || a.stride[i] == b.stride[i]);
        if (same) return Overlap::same;
    }
    if (is_dense(a) || is_dense(b)) return Overlap::partial;
    // Two interleaved views (halves of one tensor): disjoint when their rows, taken at a common pitch, do not meet.
    int64_t pitch = 0;
    for (const TensorView* t : {&a, &b})
        for (int i = 0; i < t->ndim; ++i)
            if (t->shape[i] > 1) pitch = std::max(pitch, t->stride[i]);
    if (pitch == 0 || a.dtype != b.dtype) return Overlap::partial;
    // Look for the smallest stride that both views' outer dimensions are multiples of.
    auto inner_reach = [](const TensorView& t, int64_t p) {
        int64_t reach = 0;
        for (int i = 0; i < t.ndim; ++i)
            if (t.shape[i] > 1 && t.stride[i] % p != 0) reach += (t.shape[i] - 1) * t.stride[i];
        return reach;
    };
    const int64_t size = size_of(a.dtype);
    const int64_t distance = (static_cast<const char*>(b.data) - static_cast<const char*>(a.data)) / size;
    for (const TensorView* t : {&a, &b})
        for (int i = 0; i < t->ndim; ++i) {
            const int64_t p = t->stride[i];
            if (t->shape[i] <= 1 || p <= 1) continue;
            const int64_t ra = inner_reach(a, p), rb = inner_reach(b, p);
            const int64_t d = ((distance % p) + p) % p;  // where b's rows start within a's pitch
            if (ra < d && d + rb < p) return Overlap::none;
        }
    return Overlap::partial;
}

bool expand(TensorView& t, const int64_t* shape, int ndim) {
    const int added = ndim - t.ndim;
    if (added < 0) return false;
    for (int i = ndim - 1; i >= 0; --i) {  // from the end: entry i may be written over once i - added has been read
        const bool own = i >= added && t.shape[i - added] == shape[i];
        if (!own && i >= added && t.shape[i - added] != 1) return false;
        t.stride[i] = own ? t.stride[i - added] : 0;
        t.shape[i] = shape[i];
    }
    t.ndim = ndim;
    return true;
}

void read_tensor(void* object, const char* op, const char* argument, TensorView& out) {
    auto* py = static_cast<PyObject*>(object);
    const dlpack::ExchangeApi* api = find_api(py, op, argument);
    dlpack::Tensor t;
    if (api->view_from_object(object, &t) != 0)
        fail_runtime(op, "argument ", argument, " can't be read: ", take_python_error());
    if (t.ndim > kMaxDims) fail_runtime(op, "argument ", argument, " has ", t.ndim, " dimensions, expected at most 64");
    if (!dtype_from(t.dtype, out.dtype))
        fail_runtime(op, "argument ", argument, " has an unsupported dtype (DLPack code ", int(t.dtype.code), ", ",
                     int(t.dtype.bits), " bits), expected float32, float64, float16 or bfloat16");
    switch (t.device.type) {
        case dlpack::kCPU:
        case dlpack::kCUDAHost:
            out.device = {Device::cpu, 0};
            break;
        case dlpack::kCUDA:
        case dlpack::kCUDAManaged:
            out.device = {Device::cuda, t.device.id};
            break;
        default:
            fail_runtime(op, "argument ", argument, " is on a device of DLPack type ", t.device.type,
                         ", expected cpu or cuda");
    }
    out.ndim = t.ndim;
    bool empty = false;
    int64_t expected = 1;
    for (int i = t.ndim - 1; i >= 0; --i) {
        out.shape[i] = t.shape[i];
        out.stride[i] = t.strides != nullptr ? t.strides[i] : expected;
        expected *= t.shape[i];
        empty = empty || t.shape[i] == 0;
    }
    out.data = t.data == nullptr ? nullptr : static_cast<char*>(t.data) + t.byte_offset;
    if (out.data == nullptr && !empty)
        fail_runtime(op, "argument ", argument, " of shape ", shape_string(out),
                     " has no storage (a fake or meta tensor); expected a tensor with data");
}

bool poison_new_tensors = false;

namespace {

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
    const auto keep = [](void* text, const char*, const char* message) { *static_cast<std::string*>(text) = message; };
    if (latest->allocate(&prototype, &managed, &why, keep) != 0) {
        PyErr_Clear();
        throw std::runtime_error("neurokern: can't allocate a tensor: " + why.substr(0, why.find('\n')));
    }
    void* object = nullptr;
    if (latest->managed_to_object(managed, &object) != 0) object = nullptr;
    return owned(static_cast<PyObject*>(object));
}

// Large fresh memory in pages of 2 MiB, where the machine has them for the asking: one page fault instead of 512.
// From the size on that NumPy does the same for its arrays.
constexpr int64_t kHugeFrom = int64_t{4} << 20;
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
    int64_t sizes[kMaxDims], strides[kMaxDims];
    int64_t step = 1, elements = 1;
    for (int i = ndim - 1; i >= 0; --i) {
        sizes[i] = shape[i], strides[i] = step;
        step *= std::max<int64_t>(shape[i], 1);
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

void* current_stream(Device device) {
    void* stream = nullptr;
    if (latest != nullptr && device.kind == Device::cuda)
        if (latest->current_stream(dlpack::kCUDA, device.index, &stream) != 0) PyErr_Clear();
    return stream;
}

}  // namespace nk
