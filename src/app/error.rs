//! How the worker ends that could not start, or go on.

use crate::source::SourceError;
use crate::store::StoreError;

/// Why the worker can't start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// What the configuration asks for can't be built; each line names the key.
    #[error("{0}")]
    Config(String),
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for AppError {
    fn from(e: StoreError) -> AppError {
        AppError::Failed(e.to_string())
    }
}

impl From<SourceError> for AppError {
    fn from(e: SourceError) -> AppError {
        AppError::Failed(e.to_string())
    }
}
