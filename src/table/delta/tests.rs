//! Deletion vectors, the log and its checkpoints at work, on folders of their own.
