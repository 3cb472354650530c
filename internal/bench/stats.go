package main

import "slices"

// Spread is a number that was measured several times.
type Spread struct{ Low, Median, High float64 } // the quartiles

// worthless says that the rounds differ too much for the median to mean anything.
func (s Spread) worthless() bool { return s.High-s.Low > 0.25*s.Median }

func spread(list []float64) Spread {
	list = slices.Sorted(slices.Values(list))
	return Spread{quantile(list, 0.25), quantile(list, 0.5), quantile(list, 0.75)}
}

// quantile interpolates in a sorted list.
func quantile(list []float64, q float64) float64 {
	if len(list) == 0 {
		return 0
	}
	at := q * float64(len(list)-1)
	i := int(at)
	if i+1 == len(list) {
		return list[i]
	}
	return list[i] + (at-float64(i))*(list[i+1]-list[i])
}

// ratios returns how many times the other's each round's was.
func ratios(list, other []float64) []float64 {
	r := make([]float64, len(list))
	for i := range list {
		r[i] = list[i] / other[i]
	}
	return r
}
