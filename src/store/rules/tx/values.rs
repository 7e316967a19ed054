//! Values on their way to the database, and cells of its rows: which types of ours they are.

use super::{Column, Value};

pub trait Bind {
    fn value(&self) -> Value<'_>;
}

impl Bind for Value<'_> {
    fn value(&self) -> Value<'_> {
        *self
    }
}

macro_rules! bind_int {
    ($($int:ty),*) => {$(
        impl Bind for $int {
            fn value(&self) -> Value<'_> {
                Value::Int(i64::from(*self))
            }
        }
    )*};
}
bind_int!(i64, i32, u32, u8, bool);

impl Bind for f64 {
    fn value(&self) -> Value<'_> {
        Value::Real(*self)
    }
}

impl Bind for str {
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl Bind for String {
    fn value(&self) -> Value<'_> {
        Value::Text(self)
    }
}

impl Bind for [u8] {
    fn value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl Bind for Vec<u8> {
    fn value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl<const N: usize> Bind for [u8; N] {
    fn value(&self) -> Value<'_> {
        Value::Blob(self)
    }
}

impl Bind for Column<'_> {
    fn value(&self) -> Value<'_> {
        Value::Column(self)
    }
}

impl<T: Bind + ?Sized> Bind for &T {
    fn value(&self) -> Value<'_> {
        (**self).value()
    }
}

impl<T: Bind> Bind for Option<T> {
    fn value(&self) -> Value<'_> {
        self.as_ref().map_or(Value::Null, Bind::value)
    }
}

pub trait Params {
    fn values(&self) -> Vec<Value<'_>>;
}

impl Params for () {
    fn values(&self) -> Vec<Value<'_>> {
        vec![]
    }
}

impl Params for &[&dyn Bind] {
    fn values(&self) -> Vec<Value<'_>> {
        self.iter().map(|v| v.value()).collect()
    }
}

impl<T: Bind, const N: usize> Params for [T; N] {
    fn values(&self) -> Vec<Value<'_>> {
        self.iter().map(Bind::value).collect()
    }
}

macro_rules! params_of_tuple {
    ($($name:ident),*) => {
        impl<$($name: Bind),*> Params for ($($name,)*) {
            #[allow(non_snake_case)]
            fn values(&self) -> Vec<Value<'_>> {
                let ($($name,)*) = self;
                vec![$($name.value()),*]
            }
        }
    };
}
params_of_tuple!(A, B);
params_of_tuple!(A, B, C);
params_of_tuple!(A, B, C, D);
params_of_tuple!(A, B, C, D, E);
params_of_tuple!(A, B, C, D, E, F);

macro_rules! params {
    ($($value:expr),* $(,)?) => {
        &[$(&$value as &dyn $crate::store::rules::tx::Bind),*] as &[&dyn $crate::store::rules::tx::Bind]
    };
}
pub(crate) use params;

pub trait FromCell: Sized {
    /// `None`: the cell holds something else.
    fn from_cell(cell: Value<'_>) -> Option<Self>;
}

macro_rules! int_from_cell {
    ($($int:ty),*) => {$(
        impl FromCell for $int {
            fn from_cell(cell: Value<'_>) -> Option<$int> {
                match cell {
                    Value::Int(n) => n.try_into().ok(),
                    _ => None,
                }
            }
        }
    )*};
}
int_from_cell!(i64, u32, u8, u64);

impl FromCell for bool {
    fn from_cell(cell: Value<'_>) -> Option<bool> {
        i64::from_cell(cell).map(|n| n != 0)
    }
}

impl FromCell for f64 {
    fn from_cell(cell: Value<'_>) -> Option<f64> {
        match cell {
            Value::Real(x) => Some(x),
            Value::Int(n) => Some(n as f64),
            _ => None,
        }
    }
}

impl FromCell for String {
    fn from_cell(cell: Value<'_>) -> Option<String> {
        match cell {
            Value::Text(text) => Some(text.to_owned()),
            _ => None,
        }
    }
}

impl FromCell for Vec<u8> {
    fn from_cell(cell: Value<'_>) -> Option<Vec<u8>> {
        match cell {
            Value::Blob(bytes) => Some(bytes.to_vec()),
            _ => None,
        }
    }
}

impl<const N: usize> FromCell for [u8; N] {
    fn from_cell(cell: Value<'_>) -> Option<[u8; N]> {
        match cell {
            Value::Blob(bytes) => bytes.try_into().ok(),
            _ => None,
        }
    }
}

impl<T: FromCell> FromCell for Option<T> {
    fn from_cell(cell: Value<'_>) -> Option<Option<T>> {
        match cell {
            Value::Null => Some(None),
            cell => T::from_cell(cell).map(Some),
        }
    }
}
