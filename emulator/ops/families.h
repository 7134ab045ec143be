// The decoders of all opcodes, family by family.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace emu {
class Builder;
}

namespace emu::ops {

// integer.cpp
void integer_add(Builder& b, bool subtract);
void integer_mul(Builder& b), integer_mad(Builder& b), integer_div(Builder& b), integer_rem(Builder& b);
void integer_min(Builder& b), integer_max(Builder& b), integer_neg(Builder& b), integer_abs(Builder& b);
void logic_and(Builder& b), logic_or(Builder& b), logic_xor(Builder& b), logic_not(Builder& b);
void shift_left(Builder& b), shift_right(Builder& b), funnel_shift(Builder& b);
// carry.cpp; `takes`: adds the flag
void add_carry(Builder& b, bool takes), sub_carry(Builder& b, bool takes), mad_carry(Builder& b, bool takes);
// pieces.cpp
bool is_halves(std::string_view opcode);
void add_halves(Builder& b), extreme_halves(Builder& b, bool max), extreme_relu(Builder& b, bool max);
void dp4a(Builder& b), dp2a(Builder& b), sad(Builder& b), mul24(Builder& b), mad24(Builder& b), cnot(Builder& b);
void szext(Builder& b), fns(Builder& b), vabsdiff4(Builder& b);
// bits.cpp
void popc(Builder& b), clz(Builder& b), bfind(Builder& b), brev(Builder& b), bfe(Builder& b), bfi(Builder& b);
void prmt(Builder& b), lop3(Builder& b), bmsk(Builder& b);
// floating.cpp
void floating_add(Builder& b), floating_sub(Builder& b), floating_mul(Builder& b), floating_div(Builder& b);
void floating_min(Builder& b), floating_max(Builder& b), floating_neg(Builder& b), floating_abs(Builder& b);
void fma(Builder& b), rcp(Builder& b), sqrt(Builder& b), rsqrt(Builder& b), ex2(Builder& b), lg2(Builder& b);
void sin(Builder& b), cos(Builder& b), tanh(Builder& b), copysign(Builder& b);
// convert.cpp, pack.cpp, compare.cpp, move.cpp
void cvt(Builder& b), packed_cvt(Builder& b);
bool is_packed_cvt(std::string_view opcode);
void setp(Builder& b), set(Builder& b), testp(Builder& b), selp(Builder& b), slct(Builder& b);
void mov(Builder& b), cvta(Builder& b), isspacep(Builder& b);
// memory.cpp, atomic.cpp, async.cpp
void ld(Builder& b), st(Builder& b), prefetch(Builder& b);
void atom(Builder& b), red(Builder& b);
void cp(Builder& b);
// order.cpp
uint16_t take_strength(Builder& b);  // flags of how an access orders others, from its modifiers
void fence(Builder& b);
// mbarrier.cpp, bulk.cpp, tensor.cpp, tensormap.cpp, cluster.cpp
void mbarrier(Builder& b), cp_async_mbarrier(Builder& b);
void bulk_copy(Builder& b), bulk_reduce(Builder& b), tensor_copy(Builder& b, bool reduces);
void tensormap(Builder& b);
void mapa(Builder& b), getctarank(Builder& b), cluster_barrier(Builder& b);
void async_store(Builder& b), async_reduction(Builder& b);
// shuffle.cpp, matrix.cpp
void shfl(Builder& b), vote(Builder& b), match(Builder& b), redux(Builder& b), elect(Builder& b);
void mma(Builder& b), ldmatrix(Builder& b), stmatrix(Builder& b), movmatrix(Builder& b);
// wgmma.cpp, mma.cpp, wmma.cpp
void wgmma(Builder& b), rare_mma(Builder& b), wmma(Builder& b);
// control.cpp
void bra(Builder& b), brx(Builder& b), call(Builder& b), ret(Builder& b), exit(Builder& b), trap(Builder& b);
void brkpt(Builder& b), nanosleep(Builder& b), griddepcontrol(Builder& b), createpolicy(Builder& b);
void setmaxnreg(Builder& b);
void bar(Builder& b), nothing(Builder& b), activemask(Builder& b);
// system.cpp: a call to what the driver brings along, by words of parameters; false: there is no such function
bool system_call(Builder& b, std::string_view name, const std::vector<uint32_t>& results,
                 const std::vector<uint32_t>& arguments);

}  // namespace emu::ops
