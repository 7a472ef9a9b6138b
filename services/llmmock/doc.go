// Package llmmock is the domain of a stand-in for model providers: what is answered to a request, when each piece of the answer
// is due, and what goes wrong on the way. All of it is a function of a seed, a scenario, the request and how often it came
// before, so that a run can be repeated to the byte and to the microsecond, whatever else goes on at the same time.
//
// Start at Mock.Decide, which makes of a Request the Exchange that will be carried out. The package does no I/O and knows no
// vendor's format: openai, anthropic, gemini and bedrock translate, serve carries out, scenario reads what people write.
package llmmock
