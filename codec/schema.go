package codec

import (
	"strings"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
)

// schema is what CRIU 4.2 says of the messages that are read here and of all below
// them (images/*.proto), and CRIU 4.3 of compressed pages. Of files that nothing is
// mapped from, such as sockets, the content is bytes. A line is a message, its words are the fields from number
// 1 on: "-" is a number that no field has, else the name, then what the field holds
//
//	(nothing)  a number of any width or an enum, as a varint
//	*          an array of such numbers, packed or not
//	?          a bool
//	$          a string or bytes
//	:message   messages of that name, one or many
//
// and "!" where the field is required. Two kinds of required fields lack the mark:
// those with a default value, which protobuf-c lets be absent, and fpregs, since a
// rule of its own is about the images that have none. The arrays of xsave are in the
// table of components ([xstate.CRIUArray]).
const schema = `
core        mtype! thread_info:thread_info tc:tc ids:ids thread_core:thread_core ti_arm:arm - ti_aarch64:aarch64 ti_ppc64:ppc64 ti_s390:s390 ti_mips:mips ti_loongarch64:loongarch64 ti_riscv64:riscv64
thread_info clear_tid_addr! gpregs:gpregs! fpregs:fpregs tls:tls
gpregs      r15! r14! r13! r12! bp! bx! r11! r10! r9! r8! ax! cx! dx! si! di! orig_ax! ip! cs! flags! sp! ss! fs_base! gs_base! ds! es! fs! gs! mode
fpregs      cwd! swd! twd! fop! rip! rdp! mxcsr! mxcsr_mask! st_space* xmm_space* padding* - xsave:xsave
xsave       xstate_bv! - - - - - - - cet:cet
cet         cet! ssp!
tls         entry_number! base_addr! limit! seg_32bit?! contents_h?! contents_l?! read_exec_only? limit_in_pages?! seg_not_present? usable?!

tc          task_state! exit_code! personality! flags! blk_sigset! comm$! timers:timers rlimits:rlimits cg_set signals_s:signals old_seccomp_mode old_seccomp_filter loginuid oom_score_adj sigactions:sa - - child_subreaper? - blk_sigset_extended stop_signo membarrier_registration_mask
ids         vm_id! files_id! fs_id! sighand_id! pid_ns_id net_ns_id ipc_ns_id uts_ns_id mnt_ns_id user_ns_id cgroup_ns_id time_ns_id
thread_core futex_rla! futex_rla_len! sched_nice sched_policy sched_prio blk_sigset sas:sas pdeath_sig signals_p:signals creds:creds seccomp_mode seccomp_filter comm$ blk_sigset_extended rseq_entry:rseq cg_set
timers      real:itimer! virt:itimer! prof:itimer! posix:posix
itimer      isec! iusec! vsec! vusec!
posix       it_id! clock_id! si_signo! it_sigev_notify! sival_ptr! overrun! isec! insec! vsec! vnsec! notify_thread_id
rlimits     rlimits:rlimit
rlimit      cur! max!
signals     signals:siginfo
siginfo     siginfo$!
sa          sigaction! flags! restorer! mask! compat_sigaction? mask_extended
sas         ss_sp! ss_size! ss_flags!
creds       uid! gid! euid! egid! suid! sgid! fsuid! fsgid! cap_inh* cap_prm* cap_eff* cap_bnd* secbits! groups* lsm_profile$ lsm_sockcreate$ apparmor_data$ no_new_privs cap_amb*
rseq        rseq_abi_pointer! rseq_abi_size! signature! rseq_cs_pointer

arm         clear_tid_addr! tls! gpregs:arm_gp! fpstate:arm_fp!
arm_gp      r0! r1! r2! r3! r4! r5! r6! r7! r8! r9! r10! fp! ip! sp! lr! pc! cpsr! orig_r0!
arm_fp      vfp_regs* fpscr! fpexc! fpinst! fpinst2!
aarch64     clear_tid_addr! tls! gpregs:aarch64_gp! fpsimd:aarch64_fp! pac_keys:pac
aarch64_gp  regs* sp! pc! pstate!
aarch64_fp  vregs* fpsr! fpcr!
pac         - - - - - pac_address_keys:pac_address pac_generic_keys:pac_generic
pac_address apiakey_lo! apiakey_hi! apibkey_lo! apibkey_hi! apdakey_lo! apdakey_hi! apdbkey_lo! apdbkey_hi! pac_enabled_key!
pac_generic apgakey_lo! apgakey_hi!
ppc64       clear_tid_addr! gpregs:ppc64_gp! fpstate:vector vrstate:ppc64_vr vsxstate:vector tmstate:ppc64_tm
ppc64_gp    gpr* nip! msr! orig_gpr3! ctr! link! xer! ccr! trap! texasr tfhar tfiar
ppc64_vr    vrregs* vrsave!
ppc64_tm    gpregs:ppc64_gp! fpstate:vector vrstate:ppc64_vr vsxstate:vector
vector      regs*
s390        clear_tid_addr! gpregs:s390_gp! fpregs:s390_fp! vxrs_low:vector vxrs_high:vector gs_cb:vector gs_bc:vector ri_cb:s390_ri
s390_gp     psw_mask! psw_addr! gprs* acrs* orig_gpr2! system_call!
s390_fp     fpc! fprs*
s390_ri     ri_on! regs*
mips        clear_tid_addr! tls! gpregs:mips_gp! fpregs:mips_fp!
mips_gp     r0! r1! r2! r3! r4! r5! r6! r7! r8! r9! r10! r11! r12! r13! r14! r15! r16! r17! r18! r19! r20! r21! r22! r23! r24! r25! r26! r27! r28! r29! r30! r31! lo! hi! cp0_epc! cp0_badvaddr! cp0_status! cp0_cause!
mips_fp     r0! r1! r2! r3! r4! r5! r6! r7! r8! r9! r10! r11! r12! r13! r14! r15! r16! r17! r18! r19! r20! r21! r22! r23! r24! r25! r26! r27! r28! r29! r30! r31! lo! hi! fpu_fcr31! fpu_id!
loongarch64 clear_tid_addr! tls! gpregs:loong_gp! fpregs:loong_fp!
loong_gp    regs* pc!
loong_fp    regs* fcc! fcsr!
riscv64     clear_tid_addr! tls! gpregs:riscv_gp! fpsimd:riscv_fp!
riscv_gp    pc! ra! sp! gp! tp! t0! t1! t2! s0! s1! a0! a1! a2! a3! a4! a5! a6! a7! s2! s3! s4! s5! s6! s7! s8! s9! s10! s11! t3! t4! t5! t6!
riscv_fp    f* fcsr!

pstree      pid! ppid! pgid! sid! threads*
inventory   img_version! fdinfo_per_id? root_ids:ids ns_per_id? root_cg_set lsmtype - dump_uptime pre_dump_mode tcp_close? network_lock_method plugins_entry:plugins dump_criu_run_id$ allow_uprobes? compress? compress_block_size?
plugins     - - - - - - - - - - - plugins$
mm          mm_start_code! mm_end_code! mm_start_data! mm_end_data! mm_start_stack! mm_start_brk! mm_brk! mm_arg_start! mm_arg_end! mm_env_start! mm_env_end! exe_file_id! mm_saved_auxv* vmas:vma dumpable aios:aio_ring thp_disabled?
vma         start! end! pgoff! shmid! prot! flags! status! fd! madv fdflags
aio_ring    id! nr_req! ring_len!
pagemap_head pages_id!
pagemap     vaddr! compat_nr_pages! in_parent? flags nr_pages blocks$
file        type! id! reg:reg_file isk$ nsf$ psk$ nlsk$ efd$ epfd$ sgfd$ tunf$ tfd$ ify$ ffy$ ext$ usk$ fifo$ pipe$ tty$ memfd:memfd_file bpf$ pidfd$
reg_file    id! flags! pos! - fown:fown! name$! mnt_id size ext? mode build_id* checksum checksum_config checksum_parameter
memfd_file  id! flags! pos! fown:fown! inode_id!
memfd_inode name$! uid! gid! size! shmid! seals! inode_id! hugetlb_flag mode
fown        uid! euid! signum! pid_type! pid!
cpuinfo     x86_entry:x86_entry ppc64_entry:cpu_ppc64 s390_entry:cpu_s390
x86_entry   vendor_id! cpu_family! model! stepping! capability_ver! capability* model_id$ xfeatures_mask xsave_size xsave_size_max
cpu_ppc64   endian! hwcap*
cpu_s390    - hwcap*
`

// messageType is one message of the schema.
type messageType struct {
	name     string
	number   int    // of the messages of the schema
	words    string // of it
	parse    sync.Once
	fields   []fieldType // by number
	required uint64      // the numbers of the required ones, as bits
}

type fieldType struct {
	name    string
	types   wireTypes    // that CRIU's parser takes for it
	message *messageType // of a field that holds messages
}

// wireTypes is a set of wire types.
type wireTypes uint8

const (
	varints  wireTypes = 1 << protowire.VarintType
	payloads wireTypes = 1 << protowire.BytesType
	packable           = varints | payloads
	anything           = packable | 1<<protowire.Fixed32Type | 1<<protowire.Fixed64Type
)

// unknownField is the type of a field that the schema does not name.
var unknownField = fieldType{types: anything}

// typesBySuffix: protobuf-c takes any wire type for a bool.
var typesBySuffix = map[string]wireTypes{"": varints, "*": packable, "?": anything, "$": payloads}

// messageTypes is the schema by names: of each message, the field without a name that
// an entry of an image is.
var messageTypes = sync.OnceValue(func() map[string]*fieldType {
	types := map[string]*fieldType{}
	for line := range strings.Lines(schema) {
		if name, words, ok := strings.Cut(line, " "); ok {
			types[name] = &fieldType{message: &messageType{name: name, number: len(types), words: words}}
		}
	}
	return types
})

// parsed returns t with its fields. An image needs few of the messages, and a program
// that reads one image would notice the rest.
func (t *messageType) parsed() *messageType {
	t.parse.Do(func() {
		words := strings.Fields(t.words)
		t.fields = append(make([]fieldType, 0, 1+len(words)), unknownField) // 0
		for i, word := range words {
			word, required := strings.CutSuffix(word, "!")
			if required {
				t.required |= 1 << (i + 1)
			}
			name, of, nested := strings.Cut(word, ":")
			name = strings.TrimRight(name, "*?$")
			f := fieldType{name: name, types: typesBySuffix[word[len(name):]]}
			switch {
			case nested:
				f.types, f.message = payloads, messageTypes()[of].message
			case word == "-":
				f = unknownField
			}
			t.fields = append(t.fields, f)
		}
		if t.name != "xsave" {
			return
		}
		for f := range Storable.All() {
			array := f.Component().CRIU
			for len(t.fields) <= array.Number {
				t.fields = append(t.fields, unknownField)
			}
			t.fields[array.Number] = fieldType{name: array.Name, types: packable}
		}
	})
	return t
}
