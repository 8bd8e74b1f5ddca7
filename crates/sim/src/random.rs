//! The only source of chance: one seed, integers only, the same on every machine.

/// The golden ratio as a fraction of 2^64, odd.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Splitmix64's output function (Steele, Lea and Flood).
fn splitmix(mixed: u64) -> u64 {
    let z = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// xoshiro256++ (Blackman and Vigna), seeded by splitmix64.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream that belongs to `seed`.
    pub fn new(seed: u64) -> Self {
        let mut mixed = seed;
        let state = std::array::from_fn(|_| {
            mixed = mixed.wrapping_add(GOLDEN);
            splitmix(mixed)
        });
        Self { state }
    }

    /// The stream that belongs to `seed` and the parts of a name: whatever else is drawn, it stays the same.
    pub fn keyed(seed: u64, parts: &[u64]) -> Self {
        let mix = |mixed: u64, part: &u64| splitmix(mixed.wrapping_add(GOLDEN) ^ part.wrapping_mul(GOLDEN));
        Self::new(parts.iter().fold(seed, mix))
    }

    /// A stream of its own for one concern, so that drawing more for one does not change what another gets.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.bits())
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = self.state;
        let result = a.wrapping_add(d).rotate_left(23).wrapping_add(a);
        let (c, d) = (c ^ a, d ^ b);
        self.state = [a ^ d, b ^ c, c ^ (b << 17), d.rotate_left(45)];
        result
    }

    /// A number in `0..limit`; zero when `limit` is zero. The bias is below one in 2^40 for the limits in use.
    pub fn below(&mut self, limit: u64) -> u64 {
        let product = u128::from(self.bits()).saturating_mul(u128::from(limit));
        u64::try_from(product >> 64).unwrap_or(0) // below 2^64 by construction
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low.saturating_add(self.below(high.saturating_sub(low).saturating_add(1)))
    }

    /// An index into something with `len` elements.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).unwrap_or(0)
    }

    /// True `per_million` times in a million.
    pub fn chance(&mut self, per_million: u64) -> bool {
        self.below(1_000_000) < per_million
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_seeds_give_equal_streams_and_other_seeds_others() {
        let draw = |seed| {
            std::iter::repeat_with(move || seed).take(1).flat_map(|seed| {
                let mut random = Random::new(seed);
                std::iter::repeat_with(move || random.bits()).take(8)
            })
        };
        assert_eq!(draw(7).collect::<Vec<_>>(), draw(7).collect::<Vec<_>>());
        assert_ne!(draw(7).collect::<Vec<_>>(), draw(8).collect::<Vec<_>>());
    }

    #[test]
    fn chances_are_about_what_they_say() {
        let mut random = Random::new(1);
        let hits = (0..100_000).filter(|_| random.chance(250_000)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| random.between(3, 5) <= 5));
    }

    #[test]
    fn streams_of_different_names_are_different() {
        let mut seen = std::collections::BTreeSet::new();
        for name in [[1, 2, 3], [1, 3, 2], [2, 1, 3], [0, 0, 0], [0, 0, 1]] {
            assert_eq!(Random::keyed(7, &name).bits(), Random::keyed(7, &name).bits());
            assert!(seen.insert(Random::keyed(7, &name).bits()) && seen.insert(Random::keyed(8, &name).bits()));
        }
        let hits = (0..100_000).filter(|number| Random::keyed(7, &[1, *number]).chance(250_000)).count();
        assert!((24_000..26_000).contains(&hits), "{hits}");
    }
}
