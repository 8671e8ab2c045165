//! Functions that the verifier goes through once for each program that has them, not once for each way that leads to them:
//! what is inlined is verified again behind every branch before it, and the daemon waits for that when it starts.
//!
//! Such a function takes numbers alone and returns one, so that the verifier need know nothing of its callers; it finds what
//! it works on in the program's working memory ([`Scratch`]), by its place there. The ones here are about the call that
//! stands in it.

/// Declares functions about the call in the working memory, each with the name that the verifier knows it by.
macro_rules! verified_once {
    ($($(#[$meta:meta])* $visible:vis fn $name:ident as $symbol:ident(
        $call:ident, $scratch:ident $(, $argument:ident: $kind:ty)* $(,)?
    ) $body:block)*) => {$(
        #[unsafe(no_mangle)]
        #[inline(never)]
        fn $symbol(place: u32 $(, $argument: $kind)*) -> u32 {
            #[inline(always)]
            fn told(
                $call: &$crate::probes::calls::Call, $scratch: *mut $crate::maps::Scratch $(, $argument: $kind)*
            ) -> Result<(), $crate::kernel::Unreadable> $body

            let Some(scratch) = $crate::maps::Scratch::at(place) else { return 1 };
            u32::from(told($crate::probes::calls::Call::at(scratch), scratch $(, $argument)*).is_err())
        }

        $(#[$meta])*
        #[inline(always)]
        $visible fn $name(
            scratch: *mut $crate::maps::Scratch $(, $argument: $kind)*
        ) -> Result<(), $crate::kernel::Unreadable> {
            // SAFETY: `scratch` is a map's value.
            let place = unsafe { (*scratch).place };
            if $symbol(place $(, $argument)*) == 0 { Ok(()) } else { Err($crate::kernel::Unreadable) }
        }
    )*};
}

pub(crate) use verified_once;
