//! Passwords and their hashes: bcrypt at etcd's cost, so that a snapshot carries users into etcd with their passwords.
//!
//! A hash takes tens of milliseconds, on purpose, and anybody may ask for one by logging in. So few are computed at a time,
//! on threads of their own, and few may wait; others are told to come again. A name that does not exist takes as long as one
//! that does.

use crate::errors::EtcdError;
use crate::limits::{HASHES_AT_A_TIME_MAX, HASHES_WAITING_MAX, PASSWORD_BYTES_MAX};
use std::sync::LazyLock;
use tokio::sync::Semaphore;

/// 2¹⁰ rounds: etcd's default.
const COST: u32 = 10;

/// What a password is compared with when there is no hash.
static NOBODYS: LazyLock<String> = LazyLock::new(|| bcrypt::hash("", COST).unwrap_or_default());

/// Hashes and compares, a few at a time.
#[derive(Debug)]
pub struct Passwords {
    running: Semaphore,
    waiting: Semaphore,
}

impl Passwords {
    pub fn new() -> Self {
        let waiting = HASHES_AT_A_TIME_MAX.saturating_add(HASHES_WAITING_MAX);
        Self { running: Semaphore::new(HASHES_AT_A_TIME_MAX), waiting: Semaphore::new(waiting) }
    }

    /// How a password will be recognised.
    ///
    /// # Errors
    /// [`EtcdError::PasswordTooLong`], [`EtcdError::TooManyRequests`]
    pub async fn hash(&self, password: String) -> Result<String, EtcdError> {
        if password.len() > PASSWORD_BYTES_MAX {
            return Err(EtcdError::PasswordTooLong);
        }
        self.work(move || bcrypt::non_truncating_hash(password, COST)).await?.map_err(|_| EtcdError::PasswordTooLong)
    }

    /// Whether it is the password; never, without a hash.
    ///
    /// # Errors
    /// [`EtcdError::TooManyRequests`]
    pub async fn matches(&self, password: String, hash: Option<String>) -> Result<bool, EtcdError> {
        let right = self.work(move || {
            let known = hash.is_some() && password.len() <= PASSWORD_BYTES_MAX;
            let same = bcrypt::verify(password, hash.as_ref().unwrap_or(&NOBODYS)).unwrap_or(false);
            known && same
        });
        right.await
    }

    async fn work<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, EtcdError> {
        let refused =
            || EtcdError::TooManyRequests(format!("at most {HASHES_WAITING_MAX} passwords wait to be checked"));
        let _waiting = self.waiting.try_acquire().map_err(|_| refused())?;
        let _running = self.running.acquire().await.map_err(|_| EtcdError::Stopped)?;
        tokio::task::spawn_blocking(work).await.map_err(|_| EtcdError::Stopped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_password_is_recognised_by_its_hash_and_another_is_not() {
        let passwords = Passwords::new();
        let hash = Some(passwords.hash("secret".into()).await.expect("a hash"));
        assert_eq!(passwords.matches("secret".into(), hash.clone()).await, Ok(true));
        assert_eq!(passwords.matches("Secret".into(), hash.clone()).await, Ok(false));
        assert_eq!(passwords.matches(String::new(), hash).await, Ok(false));
    }

    #[tokio::test]
    async fn without_a_hash_no_password_is_right_not_even_the_empty_one() {
        assert_eq!(Passwords::new().matches(String::new(), None).await, Ok(false));
        assert_eq!(Passwords::new().matches(String::new(), Some("no hash".into())).await, Ok(false));
    }

    #[tokio::test]
    async fn what_bcrypt_would_cut_off_is_refused() {
        let passwords = Passwords::new();
        let longest = "p".repeat(PASSWORD_BYTES_MAX);
        let hash = Some(passwords.hash(longest.clone()).await.expect("a hash"));
        assert_eq!(passwords.matches(format!("{longest}q"), hash).await, Ok(false));
        assert_eq!(passwords.hash(format!("{longest}q")).await, Err(EtcdError::PasswordTooLong));
    }

    #[tokio::test]
    async fn beyond_those_that_may_wait_nobody_waits() {
        let passwords = Passwords::new();
        let all = HASHES_AT_A_TIME_MAX + HASHES_WAITING_MAX;
        let _all = passwords.waiting.try_acquire_many(u32::try_from(all).expect("it is small")).expect("nobody waits");
        assert!(matches!(passwords.hash("x".into()).await, Err(EtcdError::TooManyRequests(_))));
    }
}
