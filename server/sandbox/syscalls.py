"""System calls that a locked process may make, by name, with their numbers. Pure.

The lists are what CPython needs to compute, to read files that it was given, to tell the time and
to end. Numbers are from the kernel's tables: arch/x86/entry/syscalls/syscall_64.tbl, and
include/uapi/asm-generic/unistd.h for aarch64, which has no calls that newer ones replaced.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ALWAYS", "ARCHITECTURES", "FILES", "NETWORK", "NUMBERS", "PROGRAM"]

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""What the kernel calls them: AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64."""


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _numbers(text: str) -> dict[str, int]:
    words = text.split()
    return dict(zip(words[::2], map(int, words[1::2]), strict=True))


ALWAYS: Final = _names(
    """
    read write futex mmap munmap mremap mprotect madvise brk close fstat newfstatat stat
    lstat statx lseek pread64 readv writev rt_sigaction rt_sigprocmask rt_sigreturn
    sigaltstack getpid getppid gettid getuid geteuid getgid getegid getcwd uname sysinfo
    getrusage times clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time
    getrandom sched_yield sched_getaffinity getcpu restart_syscall exit exit_group poll
    ppoll select pselect6 dup dup2 dup3 epoll_create1 epoll_ctl epoll_wait epoll_pwait rseq
    set_robust_list
    """
)
FILES: Final = _names("access faccessat faccessat2 readlink readlinkat getdents64")
"""Where Landlock guards the file system; `open` and `openat` are let through for reading."""
NETWORK: Final = _names(
    """
    connect sendto recvfrom sendmsg recvmsg sendmmsg shutdown getsockname getpeername
    setsockopt getsockopt
    """
)
"""Where the network is granted; `socket` is let through for the Internet's families."""
PROGRAM: Final = ("set_tid_address",)
"""For a process that becomes another program; `execveat` is let through once, and `clone` for
threads."""

NUMBERS: Final[dict[str, dict[str, int]]] = {
    "x86_64": _numbers(
        """
    read 0 write 1 open 2 close 3 stat 4 fstat 5 lstat 6 poll 7 lseek 8 mmap 9 mprotect 10
    munmap 11 brk 12 rt_sigaction 13 rt_sigprocmask 14 rt_sigreturn 15 ioctl 16 pread64 17
    readv 19 writev 20 access 21 select 23 sched_yield 24 mremap 25 madvise 28 dup 32
    dup2 33 nanosleep 35 getpid 39 socket 41 connect 42 sendto 44 recvfrom 45 sendmsg 46
    recvmsg 47 shutdown 48 getsockname 51 getpeername 52 setsockopt 54 getsockopt 55 clone 56
    exit 60
    uname 63 fcntl 72 getcwd 79 readlink 89 gettimeofday 96 getrusage 98 sysinfo 99
    times 100 getuid 102 getgid 104 geteuid 107 getegid 108 getppid 110 sigaltstack 131
    arch_prctl 158
    gettid 186 time 201 futex 202 sched_getaffinity 204 getdents64 217 set_tid_address 218
    restart_syscall 219
    clock_gettime 228 clock_getres 229 clock_nanosleep 230 exit_group 231 epoll_wait 232
    epoll_ctl 233 openat 257 newfstatat 262 readlinkat 267 faccessat 269 pselect6 270
    ppoll 271 set_robust_list 273 epoll_pwait 281 epoll_create1 291 dup3 292 prlimit64 302
    sendmmsg 307 getcpu 309 getrandom 318 execveat 322 statx 332 rseq 334
    clone3 435 faccessat2 439
        """
    ),
    "aarch64": _numbers(
        """
    getcwd 17 epoll_create1 20 epoll_ctl 21 epoll_pwait 22 dup 23 dup3 24 fcntl 25 ioctl 29
    faccessat 48 openat 56 close 57 getdents64 61 lseek 62 read 63 write 64 readv 65
    writev 66 pread64 67 pselect6 72 ppoll 73 readlinkat 78 newfstatat 79 fstat 80 exit 93
    exit_group 94 set_tid_address 96 futex 98 set_robust_list 99 nanosleep 101 clock_gettime 113
    clock_getres 114 clock_nanosleep 115 sched_getaffinity 123 sched_yield 124
    restart_syscall 128 sigaltstack 132 rt_sigaction 134 rt_sigprocmask 135 rt_sigreturn 139
    times 153 uname 160 getrusage 165 getcpu 168 gettimeofday 169 getpid 172 getppid 173
    getuid 174 geteuid 175 getgid 176 getegid 177 gettid 178 sysinfo 179 socket 198
    connect 203 getsockname 204 getpeername 205 sendto 206 recvfrom 207 setsockopt 208
    getsockopt 209 shutdown 210 sendmsg 211 recvmsg 212 brk 214 munmap 215 mremap 216
    clone 220 mmap 222 mprotect 226 madvise 233 prlimit64 261 sendmmsg 269 getrandom 278
    execveat 281 statx 291 rseq 293 clone3 435 faccessat2 439
        """
    ),
}
