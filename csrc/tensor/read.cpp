#include "tensor/read.h"

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "tensor/check.h"
#include "tensor/exchange.h"

namespace nk {

namespace {

// The exchange table hangs on the tensor's class; torch.Tensor and its subclasses share one.
struct ApiCache {
    PyTypeObject* type = nullptr;
    const dlpack::ExchangeApi* api = nullptr;
};
ApiCache cache[2];                           // torch.Tensor and Parameter, as a rule
const dlpack::ExchangeApi* known = nullptr;  // of the tensor that was read last

const dlpack::ExchangeApi* find_api(PyObject* object, const char* op, const char* argument) {
    PyTypeObject* type = Py_TYPE(object);
    for (const ApiCache& c : cache)
        if (c.type == type) return known = c.api;
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
    known = api;
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

}  // namespace

const dlpack::ExchangeApi* known_exchange() { return known; }

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

void* current_stream(const char* op, Device device) {
    if (device.kind != Device::cuda) return nullptr;
    void* stream = nullptr;
    if (known == nullptr || known->current_stream == nullptr)
        fail_runtime(op, "nothing says which stream of ", to_string(device), " is current");
    if (known->current_stream(dlpack::kCUDA, device.index, &stream) != 0)
        fail_runtime(op, "the current stream of ", to_string(device), " can't be had: ", take_python_error());
    return stream;
}

}  // namespace nk
