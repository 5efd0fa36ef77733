"""What every resumable work shares: files, manifests, locks, processes."""
