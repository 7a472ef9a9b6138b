package stage

import "fmt"

// place is where a PoP of the stage pretends to be: names are IATA codes, coordinates those of the airports.
type place struct {
	name, region        string
	latitude, longitude float64
}

var places = []place{
	{"ams1", "eu-west", 52.31, 4.76}, {"arn1", "eu-north", 59.65, 17.92}, {"atl1", "us-east", 33.64, -84.43},
	{"bog1", "sa-north", 4.70, -74.15}, {"bom1", "ap-south", 19.09, 72.87}, {"cdg1", "eu-west", 49.01, 2.55},
	{"dfw1", "us-central", 32.90, -97.04}, {"dub1", "eu-west", 53.42, -6.27}, {"eze1", "sa-south", -34.82, -58.54},
	{"fra1", "eu-central", 50.03, 8.57}, {"gru1", "sa-east", -23.43, -46.47}, {"hkg1", "ap-east", 22.31, 113.92},
	{"iad1", "us-east", 38.94, -77.46}, {"jnb1", "af-south", -26.13, 28.24}, {"lhr1", "eu-west", 51.47, -0.45},
	{"mia1", "us-east", 25.79, -80.29}, {"nrt1", "ap-northeast", 35.76, 140.39}, {"ord1", "us-central", 41.97, -87.91},
	{"sin1", "ap-southeast", 1.36, 103.99}, {"sjc1", "us-west", 37.36, -121.93}, {"syd1", "ap-southeast", -33.95, 151.18},
}

// placeOf is the i-th place; past the last name they go round with a higher number (ams2, arn2, …).
func placeOf(i int) place {
	p := places[i%len(places)]
	p.name = fmt.Sprintf("%s%d", p.name[:3], 1+i/len(places))
	return p
}
