//! key → (file, row position)
