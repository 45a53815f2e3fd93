"""What tests on real components share: an sshd, a relay that breaks links, mounts, namespaces."""
