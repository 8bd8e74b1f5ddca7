//! Whose turn it is, where there is more to say than is said at once: nobody is left out because of its name.

/// Where it goes on; `None`: with the first.
#[derive(Debug)]
pub(super) struct Turn<K>(Option<K>);

impl<K> Default for Turn<K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Ord + Copy> Turn<K> {
    /// All of these, which are in order, from the one after the last that had its turn.
    pub(super) fn order(&mut self, keys: impl Iterator<Item = K> + Clone) -> Vec<K> {
        let Some(last) = self.0.take() else { return keys.collect() };
        let earlier = keys.clone().filter(|key| *key <= last);
        keys.filter(|key| *key > last).chain(earlier).collect()
    }

    /// Not all have had their turn; this one was the last.
    pub(super) fn stop_at(&mut self, last: K) {
        self.0 = Some(last);
    }

    /// As many as `most`.
    pub(super) fn take(&mut self, keys: impl Iterator<Item = K> + Clone, most: usize) -> Vec<K> {
        let mut taken = self.order(keys);
        if taken.len() > most {
            taken.truncate(most);
            self.0 = taken.last().copied();
        }
        taken
    }
}
