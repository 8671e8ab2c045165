//! Where the kernel keeps what the sensor reads: offsets of fields, from the kernel's own type information (BTF).
//!
//! Input: BTF, the running kernel's or another's. Output: an offset in bytes for each global of the sensor. A field that
//! is not there is an error that names it, never a wrong number.

use std::path::{Path, PathBuf};

use btf_rs::{Btf, Type};

/// The sensor's global, and the field whose offset it wants: a structure, then members, anonymous ones passed through. Of
/// several the first that is there; an empty one at the end: [`ABSENT`] where none is, of what later kernels alone have.
const FIELDS: &[(&str, &str)] = &[
    ("BPRM_FILE", "linux_binprm.file"),
    ("BPRM_FILENAME", "linux_binprm.filename"),
    ("BPRM_INTERP", "linux_binprm.interp"),
    ("CQE_FLAGS", "io_uring_cqe.flags"),
    ("CQE_RES", "io_uring_cqe.res"),
    ("CQE_USER_DATA", "io_uring_cqe.user_data"),
    ("CRED_EUID", "cred.euid"),
    ("CRED_GID", "cred.gid"),
    ("CRED_UID", "cred.uid"),
    ("CRED_USER_NS", "cred.user_ns"),
    ("DENTRY_HASH_PPREV", "dentry.d_hash.pprev"),
    ("DENTRY_NAME", "dentry.d_name"),
    ("DENTRY_PARENT", "dentry.d_parent"),
    ("FDTABLE_FD", "fdtable.fd"),
    ("FDTABLE_MAX_FDS", "fdtable.max_fds"),
    ("FILENAME_NAME", "filename.name"),
    ("FILE_INODE", "file.f_inode"),
    ("FILE_MODE", "file.f_mode"),
    ("FILE_OWNER", "file.f_owner"),
    ("FILE_PATH_DENTRY", "file.f_path.dentry"),
    ("FILE_PATH_MNT", "file.f_path.mnt"),
    ("FILE_PRIVATE", "file.private_data"),
    ("FILES_FDT", "files_struct.fdt"),
    ("FOWN_FILE", "fown_struct.file|"),
    ("FOWN_PID", "fown_struct.pid"),
    ("FOWN_PID_TYPE", "fown_struct.pid_type"),
    ("FOWN_SIGNAL", "fown_struct.signum"),
    ("FS_PWD_DENTRY", "fs_struct.pwd.dentry"),
    ("FS_PWD_MNT", "fs_struct.pwd.mnt"),
    ("FS_ROOT_DENTRY", "fs_struct.root.dentry"),
    ("FS_ROOT_MNT", "fs_struct.root.mnt"),
    ("INODE_INO", "inode.i_ino"),
    ("INODE_MODE", "inode.i_mode"),
    ("INODE_SB", "inode.i_sb"),
    ("IO_ACCEPT_SLOT", "io_accept.file_slot"),
    ("IO_ASYNC_ADDR", "io_async_msghdr.addr"),
    ("IO_ASYNC_DATA", "io_kiocb.async_data"),
    ("IO_ASYNC_MSG", "io_async_msghdr.msg"),
    ("IO_ASYNC_NAMELEN", "io_async_msghdr.namelen"),
    ("IO_BIND_LEN", "io_bind.addr_len|"),
    ("IO_CMD", "io_kiocb.cmd"),
    ("IO_CONNECT_ADDR", "io_connect.addr"),
    ("IO_CONNECT_LEN", "io_connect.addr_len"),
    ("IO_CONTEXT", "io_kiocb.ctx"),
    ("IO_FILE", "io_kiocb.file"),
    ("IO_FIXED_FILES", "io_ring_ctx.file_table.data.nodes|io_ring_ctx.file_table.files"),
    ("IO_FLAGS", "io_kiocb.flags"),
    ("IO_FTRUNCATE_LEN", "io_ftrunc.len|"),
    ("IO_LINK_FLAGS", "io_link.flags"),
    ("IO_LINK_NEW", "io_link.newpath"),
    ("IO_LINK_NEW_DFD", "io_link.new_dfd"),
    ("IO_LINK_OLD", "io_link.oldpath"),
    ("IO_LINK_OLD_DFD", "io_link.old_dfd"),
    ("IO_MKDIR_DFD", "io_mkdir.dfd"),
    ("IO_MKDIR_NAME", "io_mkdir.filename"),
    ("IO_MSG", "io_sr_msg.umsg"),
    ("IO_MSG_FLAGS", "io_sr_msg.msg_flags"),
    ("IO_MSG_SHOTS", "io_sr_msg.flags"),
    ("IO_NODE_FILE", "io_rsrc_node.file_ptr|"),
    ("IO_OPCODE", "io_kiocb.opcode"),
    ("IO_OPEN_DFD", "io_open.dfd"),
    ("IO_OPEN_FLAGS", "io_open.how.flags"),
    ("IO_OPEN_NAME", "io_open.filename"),
    ("IO_OPEN_SLOT", "io_open.file_slot"),
    ("IO_RENAME_NEW", "io_rename.newpath"),
    ("IO_RENAME_NEW_DFD", "io_rename.new_dfd"),
    ("IO_RENAME_OLD", "io_rename.oldpath"),
    ("IO_RENAME_OLD_DFD", "io_rename.old_dfd"),
    ("IO_SOCKET_DOMAIN", "io_socket.domain"),
    ("IO_SOCKET_PROTOCOL", "io_socket.protocol"),
    ("IO_SOCKET_TYPE", "io_socket.type"),
    ("IO_SPLICE_FLAGS", "io_splice.flags"),
    ("IO_SPLICE_IN", "io_splice.splice_fd_in"),
    ("IO_SYNC_LEN", "io_sync.len"),
    ("IO_SYNC_MODE", "io_sync.mode"),
    ("IO_SYNC_OFF", "io_sync.off"),
    ("IO_UNLINK_DFD", "io_unlink.dfd"),
    ("IO_UNLINK_FLAGS", "io_unlink.flags"),
    ("IO_UNLINK_NAME", "io_unlink.filename"),
    ("IO_USER_DATA", "io_kiocb.cqe.user_data"),
    ("IO_XATTR_NAME", "io_xattr.ctx.kname"),
    ("IO_XATTR_PATH", "io_xattr.filename"),
    ("MM_ARG_END", "mm_struct.arg_end"),
    ("MM_ARG_START", "mm_struct.arg_start"),
    ("MM_ENV_END", "mm_struct.env_end"),
    ("MM_ENV_START", "mm_struct.env_start"),
    ("MOUNT_MNT", "mount.mnt"),
    ("MOUNT_MOUNTPOINT", "mount.mnt_mountpoint"),
    ("MOUNT_NS", "mount.mnt_ns"),
    ("MOUNT_PARENT", "mount.mnt_parent"),
    ("MSGHDR_NAME", "msghdr.msg_name"),
    ("MSGHDR_NAMELEN", "msghdr.msg_namelen"),
    ("NSPROXY_CGROUP", "nsproxy.cgroup_ns"),
    ("NSPROXY_IPC", "nsproxy.ipc_ns"),
    ("NSPROXY_MNT", "nsproxy.mnt_ns"),
    ("NSPROXY_NET", "nsproxy.net_ns"),
    ("NSPROXY_PID", "nsproxy.pid_ns_for_children"),
    ("NSPROXY_TIME", "nsproxy.time_ns_for_children"),
    ("NSPROXY_UTS", "nsproxy.uts_ns"),
    ("PID_NUMBERS", "pid.numbers"),
    ("PID_TASKS", "pid.tasks"),
    ("REGS_AX", "pt_regs.orig_ax"),
    ("REGS_BP", "pt_regs.bp"),
    ("REGS_BX", "pt_regs.bx"),
    ("REGS_CX", "pt_regs.cx"),
    ("REGS_DI", "pt_regs.di"),
    ("REGS_DX", "pt_regs.dx"),
    ("REGS_R10", "pt_regs.r10"),
    ("REGS_R8", "pt_regs.r8"),
    ("REGS_R9", "pt_regs.r9"),
    ("REGS_SI", "pt_regs.si"),
    ("SB_DEV", "super_block.s_dev"),
    ("SB_MAGIC", "super_block.s_magic"),
    ("SB_ROOT", "super_block.s_root"),
    ("SIGINFO_CODE", "kernel_siginfo.si_code"),
    ("SIGNAL_FLAGS", "signal_struct.flags"),
    ("SIGNAL_GROUP_EXIT_CODE", "signal_struct.group_exit_code"),
    ("SIGNAL_LIVE", "signal_struct.live"),
    ("SOCKET_SK", "socket.sk"),
    ("SOCK_DADDR", "sock.__sk_common.skc_daddr"),
    ("SOCK_DPORT", "sock.__sk_common.skc_dport"),
    ("SOCK_FAMILY", "sock.__sk_common.skc_family"),
    ("SOCK_FLAGS", "sock.__sk_common.skc_flags"),
    ("SOCK_NUM", "sock.__sk_common.skc_num"),
    ("SOCK_PEER_CRED", "sock.sk_peer_cred"),
    ("SOCK_PEER_PID", "sock.sk_peer_pid"),
    ("SOCK_PROTOCOL", "sock.sk_protocol"),
    ("SOCK_RCV_SADDR", "sock.__sk_common.skc_rcv_saddr"),
    ("SOCK_TYPE", "sock.sk_type"),
    ("SOCK_V6_DADDR", "sock.__sk_common.skc_v6_daddr"),
    ("SOCK_V6_RCV_SADDR", "sock.__sk_common.skc_v6_rcv_saddr"),
    ("TASK_CRED", "task_struct.cred"),
    ("TASK_EXIT_CODE", "task_struct.exit_code"),
    ("TASK_FILES", "task_struct.files"),
    ("TASK_FLAGS", "task_struct.flags"),
    ("TASK_FS", "task_struct.fs"),
    ("TASK_GROUP_LEADER", "task_struct.group_leader"),
    ("TASK_LOGINUID", "task_struct.loginuid"),
    ("TASK_MM", "task_struct.mm"),
    ("TASK_NSPROXY", "task_struct.nsproxy"),
    ("TASK_PID", "task_struct.pid"),
    ("TASK_PID_LINKS", "task_struct.pid_links"),
    ("TASK_REAL_PARENT", "task_struct.real_parent"),
    ("TASK_SIGNAL", "task_struct.signal"),
    ("TASK_START_BOOTTIME", "task_struct.start_boottime"),
    ("TASK_STATUS", "task_struct.thread_info.status"),
    ("TASK_TGID", "task_struct.tgid"),
    ("TCP_BYTES_RECEIVED", "tcp_sock.bytes_received"),
    ("TCP_BYTES_RETRANS", "tcp_sock.bytes_retrans"),
    ("TCP_BYTES_SENT", "tcp_sock.bytes_sent"),
    ("UNIX_ADDRESS", "unix_sock.addr"),
    ("UNIX_ADDRESS_LEN", "unix_address.len"),
    ("UNIX_ADDRESS_NAME", "unix_address.name"),
    ("UNIX_PATH_DENTRY", "unix_sock.path.dentry"),
    ("UNIX_PATH_MNT", "unix_sock.path.mnt"),
    ("UNIX_PEER", "unix_sock.peer"),
    ("VFSMOUNT_ROOT", "vfsmount.mnt_root"),
    ("VMA_FILE", "vm_area_struct.vm_file"),
    ("VMA_FLAGS", "vm_area_struct.vm_flags"),
];

/// In the place of an offset: this kernel has no such field. The sensor knows it by the same number.
const ABSENT: u64 = u64::MAX;

/// Structures nest no deeper than this.
const MOST_DEPTH: u32 = 16;

/// Why the offsets could not be had.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// There is no BTF.
    #[error(
        "the kernel's type information (BTF) cannot be read from {}: {why}; run a kernel built with CONFIG_DEBUG_INFO_BTF=y, \
         as the distributions' are, and see that /sys is mounted and nothing hides the file",
        path.display()
    )]
    Unreadable {
        /// Where it should be.
        path: PathBuf,
        /// What the reader says.
        why: String,
    },
    /// A field is not there.
    #[error(
        "this kernel has no field '{field}' (wanted for {global}): it is not one of the kernels that the sensor knows"
    )]
    NoField {
        /// The sensor's global.
        global: &'static str,
        /// The field.
        field: &'static str,
    },
    /// A field does not begin at a byte.
    #[error("the field '{field}' does not begin at a byte")]
    NotAligned {
        /// The field.
        field: &'static str,
    },
}

/// Offsets in bytes, by the names of the sensor's globals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offsets(Vec<(&'static str, u64)>);

impl Offsets {
    /// Those of the kernel whose BTF lies in that file.
    ///
    /// # Errors
    /// No BTF, or one that lacks a field.
    pub fn of_file(path: &Path) -> Result<Self, BtfError> {
        let unreadable = |why: String| BtfError::Unreadable { path: path.to_owned(), why };
        // Asked first: what the parser says of a file that is not there, or is empty, would puzzle whoever reads it.
        let length = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
        if length == 0 {
            return Err(unreadable("the file is empty".to_owned()));
        }
        let btf = Btf::from_file(path).map_err(|error| unreadable(error.to_string()))?;
        Self::of(&btf)
    }

    /// Those of the kernel that the BTF describes.
    ///
    /// # Errors
    /// The BTF lacks a field.
    pub fn of(btf: &Btf) -> Result<Self, BtfError> {
        let one = |&(global, field): &(&'static str, &'static str)| {
            let mut ways = field.split('|');
            let found = ways.find_map(|way| if way.is_empty() { Some(None) } else { offset_bits(btf, way).map(Some) });
            let Some(bits) = found.ok_or(BtfError::NoField { global, field })? else { return Ok((global, ABSENT)) };
            if bits.is_multiple_of(8) { Ok((global, bits / 8)) } else { Err(BtfError::NotAligned { field }) }
        };
        FIELDS.iter().map(one).collect::<Result<_, _>>().map(Self)
    }

    /// Each global and its offset.
    pub fn iter(&self) -> impl Iterator<Item = &(&'static str, u64)> {
        self.0.iter()
    }
}

fn offset_bits(btf: &Btf, field: &str) -> Option<u64> {
    let mut names = field.split('.');
    let structure = names.next()?;
    let mut r#type =
        btf.resolve_types_by_name(structure).ok()?.into_iter().find(|found| matches!(found, Type::Struct(_)))?;
    let mut bits = 0;
    for name in names {
        let (offset, member) = member(btf, &r#type, name, MOST_DEPTH)?;
        bits += offset;
        r#type = member;
    }
    Some(bits)
}

/// A member's offset and type, looked for in anonymous members too.
fn member(btf: &Btf, r#type: &Type, name: &str, depth: u32) -> Option<(u64, Type)> {
    let depth = depth.checked_sub(1)?;
    let members = match r#type {
        Type::Struct(structure) | Type::Union(structure) => &structure.members,
        Type::Typedef(alias) => return member(btf, &btf.resolve_chained_type(alias).ok()?, name, depth),
        Type::Const(alias) | Type::Volatile(alias) => {
            return member(btf, &btf.resolve_chained_type(alias).ok()?, name, depth);
        }
        Type::TypeTag(tag) => return member(btf, &btf.resolve_chained_type(tag).ok()?, name, depth),
        _ => return None,
    };
    members.iter().find_map(|found| {
        let offset = u64::from(found.bit_offset());
        let found_type = btf.resolve_chained_type(found).ok()?;
        let found_name = btf.resolve_name(found).unwrap_or_default();
        if found_name == name {
            return Some((offset, found_type));
        }
        if !found_name.is_empty() {
            return None;
        }
        member(btf, &found_type, name, depth).map(|(inner, r#type)| (offset + inner, r#type))
    })
}
