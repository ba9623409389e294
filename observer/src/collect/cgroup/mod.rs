//! The cgroup tree and its files, on v2, v1 and hybrid hosts.
